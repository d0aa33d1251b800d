"""From votes to statements: judges who are known to prefer, to err, to have habits."""

import json
import random
from pathlib import Path

import pytest
from judged_study import ARMS, PROJECT, build, judge, prefers, score

from vez.errors import ConfigError
from vez.judging import material, words
from vez.judging.plan import Pair, plan
from vez.judging.results import gather, write
from vez.judging.votes import FOLDER, Answer, Ballots

ORDER = ("v2", "v4", "v1", "base")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return build(tmp_path, scenes=("a", "b", "c", "d", "e", "f", "g", "h"), size=16)


def anything(pair: Pair, dice: random.Random) -> Answer:
    return dice.choice(("left", "right"))


def always_left(pair: Pair, dice: random.Random) -> Answer:
    return "left"


def test_nobody_has_judged(study: Path) -> None:
    assert gather(study) is None


def test_a_judge_with_a_clear_order_is_heard(study: Path) -> None:
    judge(study, "ana", prefers(ORDER))
    found = gather(study)
    assert found is not None and found.trusted == () and found.outdated == 0
    (verdicts,) = found.questions
    assert [arm.arm for arm in sorted(verdicts.arms, key=lambda arm: -arm.strength)] == list(ORDER)
    assert verdicts.strongest.arm == "v2" and verdicts.strongest.best > 0.95
    assert verdicts.comparisons == 48 and verdicts.prompts == 8 and verdicts.judges == 1
    assert sum(arm.wins for arm in verdicts.arms) == sum(arm.losses for arm in verdicts.arms) == 48
    against = {(p.first, p.second): p for p in verdicts.pairings}
    assert against["v2", "base"].preferred == "v2"
    (ana,) = found.judges
    assert (ana.alike.k, ana.alike.n, ana.flags) == (6, 6, ())
    assert ana.consistency == 1 and ana.ties_of_same.k == ana.ties_of_same.n == 6
    assert abs(verdicts.left_worth) < 0.5
    text = words.as_text(found)
    assert "allows for testing 6 of them at once" in text
    assert "v2 is preferred to no LoRA" in text and "6 of 6 mirrored repeats answered alike" in text


def test_a_coin_finds_nothing_and_is_flagged(study: Path) -> None:
    judge(study, "coin0", anything)
    found = gather(study)
    assert found is not None
    assert all(pairing.preferred is None for pairing in found.questions[0].pairings)
    text = words.as_text(found)
    assert "cannot be told apart" in text and "It takes about 85 to see it in 80%" in text


def test_a_habit_is_seen_and_does_not_become_a_preference(study: Path) -> None:
    judge(study, "lefty", always_left)
    found = gather(study)
    assert found is not None
    (lefty,) = found.judges
    assert lefty.left.rate == 1 and lefty.left_p < 1e-9 and lefty.alike.k == 0
    assert any("habit: chose the left side in 60 of 60" in flag for flag in lefty.flags)
    assert any("not self-consistent: 0 of 6" in flag for flag in lefty.flags)
    assert all(pairing.preferred is None for pairing in found.questions[0].pairings)
    assert found.questions[0].left_worth > 3
    assert found.trusted == ()  # nobody is left


def test_flagged_judges_are_also_left_out(study: Path) -> None:
    judge(study, "ana", prefers(ORDER))
    judge(study, "lefty", always_left)
    found = gather(study)
    assert found is not None
    assert found.questions[0].judges == 2 and found.trusted[0].judges == 1
    assert "Without the votes of lefty" in words.as_text(found)


def test_judges_are_compared_on_what_both_saw(study: Path) -> None:
    judge(study, "ana", prefers(ORDER))
    judge(study, "ben", prefers(ORDER))
    found = gather(study)
    assert found is not None and found.questions[0].between is not None
    same = found.questions[0].between
    assert same.units >= 20 and same.alpha == 1 and same.same.rate == same.same_decided.rate == 1
    judge(study, "cyr", prefers(ORDER[::-1]))
    again = gather(study)
    assert again is not None and again.questions[0].between is not None
    assert again.questions[0].between.alpha is not None and again.questions[0].between.alpha < 0.2


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_metrics_are_compared_with_the_votes(study: Path, higher_is_better: bool) -> None:
    values = dict(zip(ORDER, (0.9, 0.7, 0.4, 0.1), strict=True))
    score(study, values, higher_is_better=higher_is_better)
    judge(study, "ana", prefers(ORDER))
    found = gather(study)
    assert found is not None
    (liking,) = found.questions[0].metrics
    assert liking.metric == "liking" and liking.arms == 4 and liking.votes.n == 48
    expected = 1 if higher_is_better else -1
    assert liking.spearman == pytest.approx(expected)
    assert liking.votes.rate == (1 if higher_is_better else 0)


def test_only_some_arms_can_be_compared(study: Path) -> None:
    judge(study, "ana", prefers(ORDER))
    whole, two = gather(study), gather(study, ("v1", "v4"))
    assert whole is not None and two is not None
    (all_of,), (some,) = whole.questions, two.questions
    assert {arm.arm for arm in some.arms} == {"v1", "v4", "base"} and len(some.pairings) == 3
    direct = {(p.first, p.second): p.wins + p.ties + p.losses for p in all_of.pairings}
    assert some.comparisons == sum(n for (a, b), n in direct.items() if "v2" not in (a, b)) < all_of.comparisons
    assert two.judges == whole.judges and two.outdated == 0
    with pytest.raises(ConfigError, match="there is no arm 'v9'"):
        gather(study, ("v9",))


def test_hasty_votes_are_left_out_and_said(study: Path) -> None:
    judge(study, "ana", prefers(ORDER))
    judged = material.read(study, PROJECT)
    with Ballots(study / FOLDER, "ana") as ballots:
        for pair in plan(judged, judge="ana", question="text", votes=20):
            ballots.vote(pair, "right", question="text", seconds=0.2, material=judged)
    found = gather(study)
    assert found is not None
    (ana,) = found.judges
    assert ana.hasty == 20 and ana.votes == 60 and "hasty" in ana.flags[0]
    assert [verdicts.question for verdicts in found.questions] == ["concept"]


def test_votes_on_pictures_drawn_anew_are_left_out(study: Path) -> None:
    judge(study, "ana", prefers(ORDER))
    build(study.parent.parent, scenes=("a", "b", "c", "d", "e", "f", "g", "h"), size=24)  # over the old samples
    found = gather(study)
    assert found is not None and found.outdated == 60 and found.questions == ()
    assert "60 votes on pictures that were drawn anew" in words.as_text(found)


def test_results_are_written_and_always_the_same(study: Path) -> None:
    for question in ("concept", "text"):
        judge(study, "ana", prefers(ORDER), question=question)
    first, again = (write(found, study).read_bytes() for _ in range(2) if (found := gather(study)))
    assert first == again
    data = json.loads(first)
    assert data["version"] == 1 and data["study"] == "thesis" and data["base"] == "base"
    assert [verdicts["question"] for verdicts in data["questions"]] == ["concept", "text"]
    assert {arm["arm"] for arm in data["questions"][0]["arms"]} == set(ARMS)


def test_a_few_votes_are_enough_to_say_something(study: Path) -> None:
    judge(study, "ana", prefers(ORDER), votes=1)
    found = gather(study)
    assert found is not None
    assert "no interval: one prompt" in words.as_text(found)
    write(found, study)
