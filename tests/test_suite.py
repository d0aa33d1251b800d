"""The suite: its sets and sizes, what profiles take, and what a study's own prompts do to it."""

import re
from typing import Any

import pytest
from transformers import CLIPTokenizer

from vez import demo, suite
from vez.config import Project, Prompt, Study
from vez.errors import ConfigError

PROJECT = Project(
    base="some/base",
    trigger="nosnjaoutfit",
    noun="folk costume",
    describes="traditional Serbian folk costume",
    kind="garment",
)
LISTS = [(name, kind) for name, kinds in suite.SUITES.items() for kind in kinds]
SIZES = {"A": 6, "B": 24, "C": 8, "D": 36, "E": 12, "F": 12, "G": 12}


def study(**values: Any) -> Study:
    return Study.model_validate({"steps": 1, "variant": {"v1": {"dataset": "v1"}}} | values)


@pytest.mark.parametrize(("name", "kind"), LISTS)
def test_every_wording_has_the_sets_of_the_protocol(name: str, kind: str) -> None:
    lines = suite.SUITES[name][kind]
    assert {set: sum(p.set == set for p in lines) for set in SIZES} == SIZES
    assert len({p.id for p in lines}) == len(lines)
    assert {p.text for p in lines if p.set == "G"}.isdisjoint(p.text for p in lines if p.set in "ABC")
    for prompt in lines:
        calls = "{trigger}" in prompt.text
        assert calls == (prompt.role == "trigger") == (prompt.set in set("ABCG")), prompt
        assert prompt.group and "{trigger}" not in prompt.context and "{concept}" not in prompt.text
    assert len({p.text for p in lines if p.set != "D"}) == len(lines) - SIZES["D"]


@pytest.mark.parametrize(("name", "kind"), LISTS)
def test_the_ablation_asks_the_first_scenes_of_b_in_other_words(name: str, kind: str) -> None:
    lines = suite.SUITES[name][kind]
    scenes = {p.group: p for p in lines if p.set == "B"}
    for prompt in (p for p in lines if p.set == "D"):
        own = scenes[prompt.group]
        assert own.id in [f"B{i:02d}" for i in range(1, 13)] and prompt.context == own.context
        if prompt.role == "wrong":
            assert prompt.text == own.text.replace("{trigger}", "{wrong}")
        elif prompt.role == "class":
            assert "{describes}" in prompt.text and "{noun}" not in prompt.text
        else:
            assert prompt.role == "none" and "{" not in prompt.text


@pytest.mark.parametrize(("name", "kind"), LISTS)
def test_no_prompt_is_longer_than_thirty_tokens(name: str, kind: str) -> None:
    """Counted as CLIP's tokenizer does where every plain word is one token (they are, in its vocabulary of 49 408)."""
    for prompt in suite.SUITES[name][kind]:
        text = prompt.text.replace("{trigger}", "no sn ja outfit").replace("{wrong}", "zu mi ba do")
        text = text.replace("{noun}", PROJECT.noun).replace("{describes}", PROJECT.describes)
        assert len(re.findall(r"\w+|[^\w\s]", text)) <= 30, prompt


def test_tiny_cuts_none_of_its_own_prompts() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(str(demo.__path__[0]) + "/base/tokenizer")
    for prompt in suite.SUITES["tiny"]["garment"]:
        text = PROJECT.expand(prompt.text).replace("{wrong}", "zumibado")
        assert len(tokenizer(text).input_ids) <= 77, prompt


@pytest.mark.parametrize("name", list(suite.SUITES))
def test_profiles_draw_as_many_as_they_say(name: str) -> None:
    counts = {profile: suite.asked(study(suite=name), PROJECT, profile=profile).images for profile in suite.PROFILES}
    assert counts == {"probe": 0, "quick": 16, "standard": 200, "thorough": 400, "confirm": 48}
    standard = suite.asked(study(suite=name), PROJECT)
    of_set = {set: sum(p.seeds or 0 for p in standard.prompts if p.set == set) for set in "ABCDEFG"}
    assert of_set == {"A": 24, "B": 48, "C": 32, "D": 48, "E": 24, "F": 24, "G": 0}


def test_a_confirmation_shares_neither_prompts_nor_noise_with_anything_else() -> None:
    other = suite.asked(study(), PROJECT, profile="thorough")
    confirm = suite.asked(study(), PROJECT, profile="confirm")
    assert {p.text for p in confirm.prompts}.isdisjoint(p.text for p in other.prompts)
    last = max(other.sampling.first_seed + (p.seeds or 0) for p in other.prompts)
    assert confirm.sampling.first_seed >= last
    assert suite.asked(study(sampling={"profile": "confirm"}), PROJECT).prompts == confirm.prompts


def test_own_prompts_are_added_to_the_suite_and_replace_nothing() -> None:
    mine = [{"text": "{trigger} on the moon", "context": "on the moon"}, {"text": "a spoon", "role": "drift"}]
    asked = suite.asked(study(prompts=mine, sampling={"seeds": 3, "profile": "quick"}), PROJECT)
    plain = suite.asked(study(sampling={"profile": "quick"}), PROJECT)
    assert asked.prompts[: len(plain.prompts)] == plain.prompts
    assert [(p.text, p.set) for p in asked.prompts[-2:]] == [("{trigger} on the moon", "user"), ("a spoon", "user")]
    assert asked.images == plain.images + 6 and asked.about == plain.about
    assert suite.asked(study(prompts=mine), PROJECT, profile="confirm").images == 48
    with pytest.raises(ConfigError, match="'B01' is that of a prompt of vez's suite"):
        suite.asked(study(prompts=[{"text": "a spoon", "id": "B01"}]), PROJECT)


def test_a_suite_of_ones_own() -> None:
    mine = ["{trigger} on the moon", {"text": "{describes} on the moon", "role": "class", "seeds": 1}]
    mine += [{"text": "{trigger} on Mars", "set": "G"}]
    own = study(suite="own", prompts=mine, sampling={"seeds": 3})
    assert suite.asked(own, PROJECT).images == 3 + 1 + 3
    assert [p.set for p in suite.asked(own, PROJECT).prompts] == ["B", "D", "G"]
    assert suite.asked(own, PROJECT, profile="quick").images == 2, "B alone, two noises"
    assert [p.text for p in suite.asked(own, PROJECT, profile="confirm").prompts] == ["{trigger} on Mars"]
    assert suite.asked(own, PROJECT).about["suite"] == "own"
    with pytest.raises(ConfigError, match=r"'confirm' draws prompts of the sets G"):
        suite.asked(study(suite="own", prompts=mine[:1]), PROJECT, profile="confirm")


def test_the_kind_words_the_suite() -> None:
    def first(kind: str | None) -> str:
        project = PROJECT.model_copy(update={"kind": kind})
        return next(p.text for p in suite.asked(study(), project).prompts if p.id == "B02")

    assert first("garment") == "a photo of a woman wearing {trigger} {noun} in the snow"
    assert first("style") == "a village in the snow in the style of {trigger} {noun}"
    assert first("object") == first(None) == "a photo of {trigger} {noun} in the snow"
    tiny = PROJECT.model_copy(update={"kind": "style", "base": "tiny"})
    assert suite.asked(study(), tiny).about["suite"] == "tiny", "words that the base knows"
    assert suite.asked(study(), tiny).about["kind"] == "garment", "its world has no other"


def test_the_hash_names_the_suite() -> None:
    """Who changes a prompt gives the suite another version, or changes this on purpose: scores are not comparable."""
    assert suite.sha256_of("v1") == "22adcfebb96b54fdf3a2cac4881a6ece765f66697b5811a3cfd3b295e5b28657"
    assert suite.sha256_of("tiny") == "d5eada2206501ba5e712fb4b115dd9096923ceb3a375f4324e6c619b4eeefad2"
    assert suite.asked(study(), PROJECT).about["sha256"] == suite.sha256_of("v1")


def test_prompts_with_a_set_belong_to_a_suite_of_ones_own() -> None:
    with pytest.raises(ValueError, match='of the set "user"'):
        study(prompts=[{"text": "a", "set": "B"}])
    with pytest.raises(ValueError, match="so it needs prompts"):
        study(suite="own")
    with pytest.raises(ValueError, match="cannot be filled in"):
        Prompt(text="{right} word")
