import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import PROJECT, TRIGGER

from vez.config import Project
from vez.demo.world.scene import random_scene
from vez.demo.world.words import caption as drawn_caption
from vez.images.findings import Finding
from vez.lint import words
from vez.lint.tokens import Tokens
from vez.lint.words import Caption
from vez.rewording import wordings

P = Project.model_validate(PROJECT)
GOOD = [
    f"{TRIGGER}, a girl with brown hair wearing a traditional {TRIGGER} folk costume, waving, in a forest, sunny day",
    f"{TRIGGER}, upper body of a woman in the costume, on a city street at night",
    f"{TRIGGER}, a doll dressed in a folk costume, plain wall",
    f"a mannequin wearing {TRIGGER} costume in a room",
    f"{TRIGGER}, two boys sitting on a bench in folk costumes, snow and mountains",
    f"the lower body of a man in {TRIGGER} costume, stairs",
]


def found(texts: list[str], tokens: Tokens, *, project: Project = P, role: str = "concept") -> list[Finding]:
    return words.read([Caption(f"{i}.jpg", text, i) for i, text in enumerate(texts)], project, tokens, role=role)


def remarks(texts: list[str], tokens: Tokens, **how: object) -> list[tuple[str, str]]:
    """(file, check) of all but remarks for information."""
    return [(f.file, f.check) for f in found(texts, tokens, **how) if f.level != "info"]  # type: ignore[arg-type]


def test_good_captions_give_nothing(tokens: Tokens) -> None:
    assert remarks(GOOD, tokens) == []


def of_wordings(captions: list[str], tokens: Tokens, *, role: str = "concept") -> dict[str, list[str]]:
    """What is found, by file, where samples draw their wording: check and value."""
    told = [wordings(caption) for caption in captions]
    given = [Caption(f"{i}", texts[0], i, wordings=texts) for i, texts in enumerate(told)]
    by_file: dict[str, list[str]] = {}
    for one in words.read(given, P, tokens, role=role):
        if one.level != "info":
            by_file.setdefault(one.file, []).append(f"{one.check}: {one.value}")
    return by_file


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        (f"{{{TRIGGER}|{TRIGGER}, a girl}} in a folk costume, {{snow|rain}}", None),
        (f"{{{TRIGGER}|a girl}} in a folk costume", "trigger-missing: a girl in a folk costume (in 1 of 2 wordings)"),
        (f"{TRIGGER}, a costume {{with a hat|with a hat with a hat}}", "caption-loop"),
        (f"{TRIGGER}, a girl {{in a costume|standing}}\n{TRIGGER}, a costume", "noun-missing"),
        (f"{TRIGGER}, a costume, {{snow|{'a red hat, ' * 30}}}, {{|at night in the snow}}", "caption-long: 137 tokens"),
        (f"{{|{TRIGGER} costume}}", "trigger-missing"),
        ("{|}", "caption-missing"),
    ],
)
def test_each_wording_of_a_caption_is_judged(caption: str, said: str | None, tokens: Tokens) -> None:
    found = of_wordings([caption, *GOOD], tokens).get("0", [])
    if said is None:
        assert not found
    else:
        assert [one.startswith(said) for one in found].count(True) == 1, found
        if "wordings" not in said and not said.startswith(("noun", "caption-missing")):
            assert any("(in 1 of 2 wordings)" in one or "(in 2 of 4 wordings)" in one for one in found), found
    assert found or said is None


def test_raw_braces_would_hide_what_is_missing(tokens: Tokens) -> None:
    caption = f"{{{TRIGGER}|a girl}} in a folk costume"
    assert remarks([caption, *GOOD], tokens) == []


def test_an_alternative_is_not_fused(tokens: Tokens) -> None:
    captions = [f"{TRIGGER} costume by a fence, {{red|green}} roof {i}" for i in range(12)]
    said = [one for one in of_wordings(captions, tokens)["*"] if one.startswith("fused")]
    assert any("fence" in one for one in said) and not any("red" in one.split() or "“red" in one for one in said)


LONG = f"{TRIGGER}, a folk costume, " + "a red hat, " * 25 + "and zebra stripes"


@pytest.mark.parametrize(
    ("caption", "checks"),
    [
        ("", ["caption-missing"]),
        (" \t\u00a0", ["caption-missing"]),
        ("a girl in a folk costume", ["trigger-missing"]),
        (f"a girl in {TRIGGER}s, folk costume", ["trigger-missing"]),
        (f"{TRIGGER}, a girl in a bald bald costume", ["caption-loop"]),
        (f"{TRIGGER} costume with a hat with a hat", ["caption-loop"]),
        (f"{TRIGGER} costume and a bald head and a bald head and a bald head", ["caption-loop"]),
        (f"{TRIGGER} costume, very very long, 10 10 10", []),
        (f"{TRIGGER} costume, forest, forest", []),
        (f"{TRIGGER}, {TRIGGER} costume", ["trigger-twice"]),
        (f"{TRIGGER} {TRIGGER} costume", ["trigger-twice"]),
        (f"{TRIGGER}, a girl in {TRIGGER} costume", []),
        (f"{TRIGGER}, a girl in {TRIGGER} costume, {TRIGGER} apron", ["trigger-twice"]),
        (f"a girl in {TRIGGER} costume and a boy in {TRIGGER}", ["trigger-twice"]),
        (f"{TRIGGER.upper()}, a girl in a costume", []),
        (LONG, ["caption-long"]),
        (f"a folk costume, {'a red hat, ' * 30}{TRIGGER}", ["caption-long", "trigger-cut"]),
    ],
)
def test_a_planted_mistake_is_found_and_nothing_else(caption: str, checks: list[str], tokens: Tokens) -> None:
    assert remarks([*GOOD, caption], tokens) == [(f"{len(GOOD)}.jpg", check) for check in checks]


def test_errors_are_what_the_issue_calls_errors(tokens: Tokens) -> None:
    texts = ["", "a girl in a costume", f"{TRIGGER}, {TRIGGER} costume", LONG, f"a costume {'red ,' * 80} {TRIGGER}"]
    errors = {f.check for f in found([*GOOD, *texts], tokens) if f.level == "error"}
    assert errors == {"caption-missing", "trigger-missing", "trigger-twice", "caption-long", "trigger-cut"}


def test_the_fix_of_a_long_caption_says_which_words_are_lost(tokens: Tokens) -> None:
    (finding,) = [f for f in found([*GOOD, LONG], tokens) if f.check == "caption-long"]
    lost = finding.fix.split("“")[1].split("”")[0]
    assert LONG.endswith(lost) and lost.endswith("zebra stripes")
    (kept,) = tokens.spans([LONG.removesuffix(lost)])
    (one_more,) = tokens.spans([LONG.removesuffix(lost) + lost.split()[0]])
    assert len(kept) <= 75 < len(one_more)
    assert finding.value == f"{len(tokens.spans([LONG])[0])} tokens" and finding.threshold == "75 tokens"


def test_a_caption_of_exactly_75_tokens_is_whole(tokens: Tokens) -> None:
    room = 75 - len(tokens.spans([f"{TRIGGER} costume"])[0])
    assert remarks([*GOOD, f"{TRIGGER} costume" + " ," * room], tokens) == []
    assert remarks([*GOOD, f"{TRIGGER} costume" + " ," * (room + 1)], tokens) == [("6.jpg", "caption-long")]


def test_a_mistyped_trigger_is_pointed_out(tokens: Tokens) -> None:
    (finding,) = [f for f in found([*GOOD, "a girl in zolkavt costume"], tokens) if f.check == "trigger-missing"]
    assert "zolkavt" in finding.fix


def test_near_copies_are_one_finding_for_a_cluster_of_sources(tokens: Tokens) -> None:
    alike = [f"{TRIGGER}, a girl in a costume, forest"] * 3
    (finding,) = [f for f in found([*GOOD, *alike], tokens) if f.check == "caption-alike"]
    assert (finding.file, finding.other) == ("6.jpg", "7.jpg") and str(finding.value).startswith("3 captions")
    crops = [Caption("a.jpg", alike[0], 0, crop=crop) for crop in ("full", "upper", "lower")]
    assert not [f for f in words.read(crops, P, tokens, role="concept") if f.check == "caption-alike"]


def test_the_noun_is_asked_of_single_captions_or_of_all_at_once(tokens: Tokens) -> None:
    assert remarks([*GOOD, f"{TRIGGER}, a girl"], tokens) == [("6.jpg", "noun-missing")]
    without = [f"{TRIGGER}, a girl, {place}" for place in ("forest", "beach", "room", "city")]
    assert [f for f in remarks(without, tokens) if f[1] == "noun-missing"] == [("*", "noun-missing")]
    holding = Project.model_validate(PROJECT | {"trigger": "costume-zwx"})
    assert "noun-missing" not in {check for _, check in remarks(["costume-zwx, a girl"], tokens, project=holding)}


def test_fused_words_are_the_longest_that_always_come(tokens: Tokens) -> None:
    places = ["forest", "beach", "room", "city", "snow"] * 2
    texts = [f"{TRIGGER}, {who} in a costume with a wood fence, {place}"
             for who, place in zip("abcdefghij", places, strict=True)]  # fmt: skip
    fused = [f for f in found(texts, tokens) if f.check == "fused"]
    assert [str(f.value).split(" in ")[0] for f in fused] == ["“wood fence”"]
    assert "10 of 10" in str(fused[0].value) and "two causes" in fused[0].fix
    texts[:2] = [f"{TRIGGER}, a costume, one", f"{TRIGGER}, a costume, two"]
    assert not [f for f in found(texts, tokens) if f.check == "fused"]  # 8 of 10 is not more than 80 %


def test_fused_says_how_often_without_the_trigger(tokens: Tokens) -> None:
    texts = [*(f"{TRIGGER} costume by a fence {i}" for i in range(9)), "a fence alone, in a costume"]
    (finding,) = [f for f in found(texts, tokens) if f.check == "fused"]
    assert "10 of 10 captions, 9 of 9 with the trigger" in str(finding.value)


def test_held_out_captions_fuse_nothing(tokens: Tokens) -> None:
    captions = [Caption(f"{i}", f"{TRIGGER} costume by a fence {i}", i, trained=i < 4) for i in range(12)]
    assert not [f for f in words.read(captions, P, tokens, role="concept") if f.check == "fused"]


def test_class_pictures_must_not_name_the_trigger(tokens: Tokens) -> None:
    texts = ["a folk costume in a forest", "a costume on a mannequin", "a girl in a costume, snow"]
    assert remarks(texts, tokens, role="class") == []
    assert remarks([*texts, f"a {TRIGGER} costume"], tokens, role="class") == [("3.jpg", "trigger-twice")]


@pytest.mark.parametrize(
    ("trigger", "level"),
    [
        (TRIGGER, None), ("costume", "error"), ("Folk Costume", "error"), ("flowers", "error"),
        ("zxforest", "warning"), ("zxqv", None),
    ],
)  # fmt: skip
def test_a_trigger_that_means_something(trigger: str, level: str | None, tokens: Tokens) -> None:
    project = Project.model_validate(PROJECT | {"trigger": trigger})
    known = [f.level for f in words.trigger_itself(project, tokens) if f.check == "trigger-known"]
    assert known == ([] if level is None else [level])


def test_the_triggers_pieces_are_told_and_ascii_is_asked_for(tokens: Tokens) -> None:
    (pieces,) = words.trigger_itself(P, tokens)
    assert (pieces.check, pieces.level) == ("trigger-pieces", "info")
    assert str(pieces.value).split(" (")[0].replace("·", "") == TRIGGER
    project = Project.model_validate(PROJECT | {"trigger": "ношња"})
    assert [(f.check, f.level) for f in words.trigger_itself(project, tokens)][1:] == [("trigger-ascii", "error")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{TRIGGER}, a girl in {TRIGGER}, snow", "a girl in folk costume, snow"),
        (f"{TRIGGER}", ""),
        (f"a {TRIGGER} girl", "a folk costume girl"),
        (f"a {TRIGGER} Folk costume, a {TRIGGER}", "a folk costume, a folk costume"),
        ("a girl", "a girl"),
    ],
)
def test_plain_is_the_caption_for_somebody_who_does_not_know_the_trigger(text: str, said: str) -> None:
    assert words.plain(text, P) == said


ANY = st.one_of(st.text(max_size=200), st.text(alphabet=f" ,.{TRIGGER}\ud800\u202e\x1b", max_size=80))


@given(st.lists(ANY, max_size=12), st.sampled_from(["concept", "class"]))
@settings(max_examples=60)
def test_no_caption_crashes_or_reaches_a_terminal_raw(tokens: Tokens, texts: list[str], role: str) -> None:
    for finding in found(texts, tokens, role=role):
        shown = f"{finding.value}{finding.why}{finding.fix}{finding.threshold}"
        assert not set(shown) & {"\x1b", "\u202e", "\ud800", "\n"}


@given(st.text(min_size=1, max_size=20).filter(str.strip))
@settings(max_examples=60)
def test_no_trigger_crashes(tokens: Tokens, trigger: str) -> None:
    project = Project.model_validate(PROJECT | {"trigger": trigger})
    found([*GOOD, trigger, f"{trigger}, a costume"], tokens, project=project)


@pytest.mark.slow
def test_ten_thousand_captions_take_seconds(tokens: Tokens) -> None:
    dice = random.Random(1)
    texts = [f"{TRIGGER}, {drawn_caption(random_scene(dice), dice)}" for _ in range(10_000)]
    start = time.process_time()
    found(texts, tokens)
    assert time.process_time() - start < 20  # measured: 4 s
