"""Which pairs are asked: the plan's promises, for any study and any judge."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vez.errors import ConfigError
from vez.judging.material import Cell, Material
from vez.judging.plan import APART, Pair, plan, thinness, votes_in


def pictures(arms: int, prompts: int, seeds: int) -> Material:
    names = (*(f"v{i}" for i in range(1, arms)), "base")
    cells = [Cell(a, f"p{p}", s) for a in names for p in range(prompts) for s in range(seeds)]
    texts = {f"p{p}": f"text {p}" for p in range(prompts)}
    return Material("s", names, "base", texts, {c: Path() for c in cells}, {c: str(c) for c in cells})


def kinds(pairs: tuple[Pair, ...]) -> Counter[str]:
    return Counter(pair.kind for pair in pairs)


studies = st.builds(pictures, st.integers(2, 6), st.integers(2, 8), st.integers(1, 3))
judges = st.text("abcxyz", min_size=1, max_size=8)


def test_ten_minutes_are_sixty_votes_as_planned() -> None:
    assert votes_in(10) == 60
    assert kinds(plan(pictures(5, 8, 2), judge="me", question="concept", votes=60)) == {
        "comparison": 48,
        "repeat": 6,
        "same": 6,
    }


@settings(max_examples=40, deadline=None)
@given(studies, judges, st.integers(1, 90))
def test_a_plan_keeps_its_promises(material: Material, judge: str, votes: int) -> None:
    pairs = plan(material, judge=judge, question="concept", votes=votes)
    assert pairs == plan(material, judge=judge, question="concept", votes=votes)
    assert len({pair.id for pair in pairs}) == len(pairs) <= votes
    seen: dict[str, int] = {}
    for place, pair in enumerate(pairs):
        assert pair.left.prompt == pair.right.prompt
        if pair.kind == "same":
            assert pair.left.arm == pair.right.arm and pair.left.seed != pair.right.seed
        else:
            assert pair.left.arm != pair.right.arm and pair.left.seed == pair.right.seed
        if pair.kind == "comparison":
            seen[pair.id] = place
        if pair.kind == "repeat":
            first = pairs[seen[pair.of]]
            assert (first.left, first.right) == (pair.right, pair.left) and place - seen[pair.of] >= APART
    compared = [frozenset((pair.left, pair.right)) for pair in pairs if pair.kind == "comparison"]
    assert len(set(compared)) == len(compared)  # no comparison twice but the repeats


@settings(max_examples=20, deadline=None)
@given(studies, judges, st.integers(1, 40), st.integers(0, 40))
def test_a_longer_plan_begins_as_the_shorter_one(material: Material, judge: str, votes: int, more: int) -> None:
    short = plan(material, judge=judge, question="text", votes=votes)
    assert plan(material, judge=judge, question="text", votes=votes + more)[: len(short)] == short


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 5), judges)
def test_arms_sides_and_prompts_are_balanced_wherever_a_judge_stops(arms: int, judge: str) -> None:
    material = pictures(arms, 8, 2)
    pairs = [p for p in plan(material, judge=judge, question="concept", votes=60) if p.kind == "comparison"]
    for stop in (12, 24, 48):
        done = pairs[:stop]
        pairings = Counter(frozenset((p.left.arm, p.right.arm)) for p in done)
        every = [pairings[frozenset(pair)] for pair in combinations(material.arms, 2)]
        assert max(every) - min(every) <= 2
        prompts = Counter(p.left.prompt for p in done)
        assert max(prompts.values()) - min(prompts[p] for p in material.prompts) <= 4
    for arm in material.arms:
        left, right = (sum(arm == side(p).arm for p in pairs) for side in (lambda p: p.left, lambda p: p.right))
        assert abs(left - right) <= arms
    for a, b in combinations(material.arms, 2):
        sides = Counter(p.left.arm for p in pairs if {p.left.arm, p.right.arm} == {a, b})
        assert abs(sides[a] - sides[b]) <= 1


def test_judges_share_half_of_their_comparisons_and_nothing_of_the_order() -> None:
    material = pictures(5, 12, 4)
    ana, ben = (plan(material, judge=name, question="concept", votes=60) for name in ("ana", "ben"))
    of_ana, of_ben = ({frozenset((p.left, p.right)) for p in of if p.kind == "comparison"} for of in (ana, ben))
    assert 20 <= len(of_ana & of_ben) <= 32
    assert not {p.id for p in ana} & {p.id for p in ben}
    assert [p.kind for p in ana] != [p.kind for p in ben]


def test_the_arm_without_a_lora_is_judged_as_often_as_the_others() -> None:
    pairs = plan(pictures(5, 8, 2), judge="me", question="concept", votes=60)
    shown = Counter(side.arm for p in pairs if p.kind == "comparison" for side in (p.left, p.right))
    assert max(shown.values()) - min(shown.values()) <= 4


def test_one_noise_leaves_no_arm_to_compare_with_itself() -> None:
    assert kinds(plan(pictures(4, 8, 1), judge="me", question="concept", votes=40))["same"] == 0


def test_a_small_study_ends_the_plan_early_and_one_arm_is_refused() -> None:
    assert len(plan(pictures(2, 2, 1), judge="me", question="concept", votes=60)) == 2
    with pytest.raises(ConfigError, match="at least two arms"):
        plan(pictures(1, 2, 2), judge="me", question="concept", votes=60)


def test_how_thin_a_plan_is_said() -> None:
    assert thinness(pictures(5, 8, 2), 60) == "5 arms make 10 pairings; 60 votes compare each about 5 times"
    assert thinness(pictures(8, 8, 2), 8) == "8 arms make 28 pairings; 8 votes compare each less than once"
