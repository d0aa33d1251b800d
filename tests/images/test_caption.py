import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.config import Dataset, Override, Project, Rule
from vez.images.caption import final_caption

TRIGGER = "nosnjaoutfit"
PROJECT = Project(base="tiny", trigger=TRIGGER, noun="folk costume", describes="traditional Serbian folk costume")
TOKENS = ["a", "girl", "in", "folk", "costume", ",", "1,000", TRIGGER, ".", "\n"]
WORDS = st.lists(st.sampled_from(TOKENS)).map(" ".join)
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126))
SAID = st.one_of(st.text(), WORDS)
PHRASES = st.one_of(st.text(min_size=1), st.sampled_from(["folk costume", "a girl", "(a", "."])).filter(str.strip)


def recipe(**changes: object) -> Dataset:
    return Dataset.model_validate({"images": "images", **changes})


def rule(find: str, replace: str) -> Rule:
    return Rule(find=find, replace=replace)


def count(trigger: str, caption: str) -> int:
    return len(re.findall(rf"(?<!\w){trigger}(?!\w)", caption, re.IGNORECASE))


def test_the_reference_study_s_caption() -> None:
    rules = (rule("in a folk costume", "wearing traditional {trigger}"),)
    said = "a girl in a folk costume standing on a set of stairs"
    assert final_caption(said, PROJECT, recipe(rules=rules)) == (
        "nosnjaoutfit, a girl wearing traditional nosnjaoutfit standing on a set of stairs"
    )


@pytest.mark.parametrize(
    ("said", "rules", "prefix", "final"),
    [
        ("a Dress and dresses", [("dress", "{noun}")], True, "nosnjaoutfit, a folk costume and dresses"),
        ("a dress", [("dress", "skirt"), ("skirt", "{trigger}")], False, "a nosnjaoutfit"),
        ("a dress", [("dress", r"\1 \g<0>")], False, r"a \1 \g<0>"),
        ("a dress", [(".", "x"), ("a.*", "x"), ("[a-z]", "x")], False, "a dress"),
        ("what? (a dress)", [("(a dress)", "")], False, "what?"),
        ("a  folk \n costume", [("folk   costume", "dress")], False, "a dress"),
        ("a girl, in a dress, seated", [("in a dress", "")], False, "a girl, seated"),
        ("in a dress, a girl", [("in a dress", "")], False, "a girl"),
        ("1,000 girls ,many", [], False, "1,000 girls, many"),
        ("it is {noun}", [("is", "{describes}")], False, "it traditional Serbian folk costume {noun}"),
        ("", [], True, "nosnjaoutfit"),
        ("nosnjaoutfit, a girl", [], True, "nosnjaoutfit, a girl"),
        ("Nosnjaoutfit on a girl", [], True, "Nosnjaoutfit on a girl"),
        ("nosnjaoutfits, many", [], True, "nosnjaoutfit, nosnjaoutfits, many"),
        ("  a\n girl, ", [], True, "nosnjaoutfit, a girl"),
    ],
)
def test_rules(said: str, rules: list[tuple[str, str]], prefix: bool, final: str) -> None:
    made = recipe(rules=tuple(rule(find, replace) for find, replace in rules), prefix=prefix)
    assert final_caption(said, PROJECT, made) == final


@pytest.mark.parametrize(
    ("said", "tags", "final"),
    [
        ("a girl", ("outdoors", "{noun}"), "nosnjaoutfit, a girl, outdoors, folk costume"),
        ("a girl outdoors", ("Outdoors", "door"), "nosnjaoutfit, a girl outdoors, door"),
        ("a girl", ("red", "red"), "nosnjaoutfit, a girl, red"),
        ("", ("red",), "nosnjaoutfit, red"),
        ("a girl", ("{trigger}",), "nosnjaoutfit, a girl, nosnjaoutfit"),
        ("a girl", (" , red,,", ","), "nosnjaoutfit, a girl, red"),
    ],
)
def test_tags_follow_unless_they_are_there(said: str, tags: tuple[str, ...], final: str) -> None:
    assert final_caption(said, PROJECT, recipe(tags=tags)) == final


def test_a_file_s_own_rules_come_first() -> None:
    own = Override(rules=(rule("dress", "kilt"),), tags=("seated",), prefix=False)
    made = recipe(
        rules=(rule("dress", "{trigger}"), rule("kilt", "{noun}")), tags=("outdoors",), override={"1.jpg": own}
    )
    assert final_caption("a dress", PROJECT, made, file="1.jpg") == "a folk costume, outdoors, seated"
    assert final_caption("a dress", PROJECT, made, file="2.jpg") == "nosnjaoutfit, a nosnjaoutfit, outdoors"
    wants = recipe(prefix=False, override={"1.jpg": Override(prefix=True)})
    assert final_caption("a dress", PROJECT, wants, file="1.jpg") == "nosnjaoutfit, a dress"
    assert final_caption("a dress", PROJECT, wants) == "a dress"


def test_class_pictures_never_begin_with_the_trigger() -> None:
    made = recipe(role="class", override={"1.jpg": Override(prefix=True)})
    assert final_caption("a dress", PROJECT, made, file="1.jpg") == "a dress"


@given(SAID)
def test_the_prefix_is_put_once(said: str) -> None:
    final = final_caption(said, PROJECT, recipe())
    assert final.lower().startswith(TRIGGER) and final_caption(final, PROJECT, recipe()) == final
    plain = final_caption(said, PROJECT, recipe(prefix=False))
    assert final in (plain, f"{TRIGGER}, {plain}", TRIGGER)


@given(SAID, st.booleans(), st.sampled_from(["concept", "class"]), st.one_of(st.none(), st.booleans()))
def test_the_trigger_is_there_if_and_only_if_it_should_be(said: str, prefix: bool, role: str, own: bool | None) -> None:
    made = recipe(prefix=prefix, role=role, override={"1.jpg": Override(prefix=own)})
    final = final_caption(said, PROJECT, made, file="1.jpg")
    put = role == "concept" and (prefix if own is None else own)
    begins = re.match(rf"[\s,]*{TRIGGER}(?!\w)", said, re.IGNORECASE) is not None
    assert count(TRIGGER, final) == count(TRIGGER, said) + (put and not begins)


@given(SAID, st.lists(st.tuples(PHRASES, SAID.filter(lambda text: "{" not in text))), st.lists(PHRASES))
def test_any_caption_is_one_line_without_double_spaces_or_commas(
    said: str, rules: list[tuple[str, str]], tags: list[str]
) -> None:
    tags = [tag for tag in tags if "{" not in tag]
    final = final_caption(said, PROJECT, recipe(rules=[rule(*pair) for pair in rules], tags=tags))
    assert final == " ".join(final.split())
    assert not re.search(r",\s*,", final) and not re.search(r"^,|,$", final)


@given(ASCII.filter(str.strip), ASCII)
def test_what_is_looked_for_is_meant_as_it_is_written(find: str, said: str) -> None:
    """No character of ``find`` is a pattern: what is not there in so many letters is not replaced."""
    made, none = recipe(rules=(rule(find, "‡"),), prefix=False), recipe(prefix=False)
    plain, words = final_caption(said, PROJECT, none), " ".join(find.split())
    if words.lower() not in plain.lower():
        assert final_caption(said, PROJECT, made) == plain
    alone = final_caption(words, PROJECT, none)
    assert alone != words or final_caption(words, PROJECT, made) == "‡"


@given(SAID)
def test_a_tag_is_not_put_twice(said: str) -> None:
    made = recipe(tags=("folk costume", "red"), prefix=False)
    final = final_caption(said, PROJECT, made)
    assert final_caption(final, PROJECT, made) == final
    assert count("red", final) == max(1, count("red", final_caption(said, PROJECT, recipe(prefix=False))))


def test_the_rule_needs_no_model_library() -> None:
    code = "import sys, vez.images.caption; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
