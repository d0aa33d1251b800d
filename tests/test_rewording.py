"""Captions worded for a sample: what is drawn, what stays, and what kohya would have made of the same draws."""

import random
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.config import Variant
from vez.rewording import MOST_WORDINGS, first_wording, may_lose, may_move, reworded, rewords, wordings


def variant(**values: Any) -> Variant:
    return Variant(dataset="v1", **values)


DRAWS = variant(wildcards=True)


def as_kohya(caption: str) -> set[str]:
    """Everything that kohya's process_caption could make of it (its own expression, every choice tried)."""
    found = set()
    for seed in range(300):
        dice = random.Random(seed)
        line = dice.choice(caption.split("\n")).replace("{{", "⦅").replace("}}", "⦆")
        line = re.sub(r"\{([^}]+)\}", lambda match, dice=dice: dice.choice(match.group(1).split("|")), line)
        found.add(line.replace("⦅", "{").replace("⦆", "}"))
    return found


@pytest.mark.parametrize(
    "caption",
    [
        "plain words, no choice",
        "a {red|green|blue} hat",
        "a {red|green} hat, {in snow|at night}",
        "{zolka|zolka hat}",
        "one {only} option, {|empty}",
        "{{not|a choice}}, a {b|c}",
        "brackets {} and | alone",
        "first line\nsecond {a|b} line\nthird",
    ],
)
def test_what_is_drawn_is_what_kohya_may_draw(caption: str) -> None:
    assert {reworded(caption, DRAWS, seed=seed) for seed in range(300)} == as_kohya(caption)


def test_each_option_is_as_likely() -> None:
    found = Counter(reworded("{a|b|c}", DRAWS, seed=seed) for seed in range(3000))
    assert found.keys() == {"a", "b", "c"} and all(900 < count < 1100 for count in found.values())


def test_braces_in_braces_are_drawn_from_the_inside() -> None:
    found = {reworded("a { {dark|light} red|blue} hat", DRAWS, seed=seed) for seed in range(100)}
    assert found == {"a  dark red hat", "a  light red hat", "a blue hat"}


def test_without_wildcards_braces_are_words() -> None:
    plain = variant()
    assert not rewords(plain) and rewords(DRAWS)
    assert reworded("a {red|green} hat\nline", plain, seed=3) == "a {red|green} hat\nline"


def test_parts_are_counted_after_the_draw() -> None:
    both = variant(wildcards=True, shuffle_caption=True, keep_tokens=1)
    for seed in range(50):
        parts = reworded("{zolka, hat|zolka}, a, b", both, seed=seed).split(", ")
        assert parts[0] == "zolka" and {"a", "b"} < set(parts)


def test_a_draw_moves_no_other() -> None:
    """The order of the parts is the same with and without wildcards."""
    shuffled, both = variant(shuffle_caption=True), variant(shuffle_caption=True, wildcards=True)
    for seed in range(20):
        assert reworded("a, b, c, d", shuffled, seed=seed) == reworded("a, b, c, d", both, seed=seed)


def test_the_first_wording() -> None:
    assert first_wording("zolka, {a| {b|c} } hat\nother") == "zolka, a hat"
    assert first_wording("{{a|b}}") == "{a|b}"


@pytest.mark.parametrize(
    "caption",
    ["plain", "a {red|green|blue} hat", "a { {dark|light} red|blue} {b|c}", "one\ntwo {a|b}\n{|three}", "{a|a}"],
)
def test_all_that_may_be_drawn_is_known(caption: str) -> None:
    found = wordings(caption)
    assert set(found) == {reworded(caption, DRAWS, seed=seed) for seed in range(300)}
    assert len(set(found)) == len(found) and found[0] == first_wording(caption)


def test_of_too_many_wordings_each_alternative_is_known() -> None:
    caption = "{a|bb|ccc}" * 20
    found = wordings(caption)
    assert len(found) <= MOST_WORDINGS and {"a" * 20, "bb" * 20, "ccc" * 20} <= set(found)
    assert len(wordings("{a|a}" * 40)) == 1, "and it takes no time"


def test_what_a_wording_may_lose() -> None:
    loses = variant(wildcards=True, tag_dropout=0.1, keep_tokens=1)
    assert may_lose("{a photo, zolka|zolka}, snow", loses, "zolka")
    assert not may_lose("{zolka, a|zolka}, snow", loses, "zolka")
    moves = variant(wildcards=True, shuffle_caption=True)
    assert may_move("{a zolka|zolka, red} hat", moves, "zolka") and not may_move("{a zolka|zolka} hat", moves, "zolka")


@given(st.text(alphabet="{}|a,\n ", max_size=40), st.integers(0, 2**64 - 1))
def test_any_caption_has_a_wording(caption: str, seed: int) -> None:
    text = reworded(caption, DRAWS, seed=seed)
    assert text == reworded(caption, DRAWS, seed=seed)
    assert "\n" not in text and len(text) <= len(caption)


@pytest.mark.parametrize(
    ("values", "caption", "loses", "moves"),
    [
        ({}, "zolka, a hat", False, False),
        ({"tag_dropout": 0.1}, "zolka, a hat", True, False),
        ({"tag_dropout": 0.1, "keep_tokens": 1}, "Zolka, a hat", False, False),
        ({"tag_dropout": 0.1, "keep_tokens": 1}, "a photo, zolka", True, False),
        ({"tag_dropout": 0.1, "keep_tokens": 1}, "a photo", False, False),
        ({"shuffle_caption": True}, "zolka, a hat", False, True),
        ({"shuffle_caption": True}, "zolka", False, False),
        ({"shuffle_caption": True, "keep_tokens": 1}, "zolka, a hat", False, False),
    ],
)
def test_where_the_trigger_may_go(values: dict[str, Any], caption: str, loses: bool, moves: bool) -> None:
    setting = variant(**values)
    assert may_lose(caption, setting, "zolka") is loses
    assert may_move(caption, setting, "zolka") is moves
