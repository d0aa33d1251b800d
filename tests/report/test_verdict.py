from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from vez.report.evidence import Difference, Metric, Score, Scores
from vez.report.verdict import Effort, Metrics, adjusted_p, counted, disagreement, interval, judge, signed, told
from vez.store import Artifact

METRICS = Metrics(concept=("similarity", "T1"), guard="T2", literal="T0", names={"T1": "the words"})
WORDS = ("better", "worse", "not distinguishable", "equivalent")
NOWHERE = Artifact(Path("scores"), "0" * 64, "scores", {}, {}, 1, {})
EFFORTS = {"v1": Effort(100, 8), "v2": Effort(50, 16), "v3": Effort(50, 8)}


def difference(word: str, diff: float = 0.1, **more: Any) -> Difference:
    return Difference(diff=diff, low=diff - 0.05, high=diff + 0.05, p=0.01, p_holm=0.02, verdict=word, **more)


def scores(
    words: dict[str, dict[str, str]],
    *,
    means: dict[str, float] | None = None,
    pairs: dict[tuple[str, str], str] | None = None,
) -> Scores:
    """Scores in which arm × metric has a word against no LoRA, and pairs have one on the deciding metric."""
    metrics = {metric for of in words.values() for metric in of}
    at = means or {}
    decisive = "similarity" if "similarity" in metrics else "T1"
    return Scores(
        artifact=NOWHERE,
        metrics={metric: Metric(definition="") for metric in metrics},
        arms={
            arm: {metric: Score(mean=at.get(arm, 0.5), n_prompts=8, n_images=16, low=0.4, high=0.6) for metric in of}
            for arm, of in words.items()
        },
        against_base={arm: {m: difference(word, mde=0.04) for m, word in of.items()} for arm, of in words.items()},
        pairs={pair: {decisive: difference(word)} for pair, word in (pairs or {}).items()},
        rows=(),
    )


def learned(*arms: str, guard: str = "not distinguishable") -> dict[str, dict[str, str]]:
    return {arm: {"T1": "better", "T2": guard} for arm in arms}


def test_nothing_scored_names_nothing() -> None:
    verdict = judge(None, EFFORTS, metrics=METRICS)
    assert verdict.use is None
    assert "no LoRA can be named" in verdict.sentence
    assert dict(verdict.others) == dict.fromkeys(EFFORTS, "not measured.")


def test_the_only_one_that_learned_is_named_and_the_others_are_told_why_not() -> None:
    found = scores({**learned("v1"), "v2": {"T1": "not distinguishable", "T2": "better"}, "v3": {"T1": "worse"}})
    verdict = judge(found, EFFORTS, metrics=METRICS)
    assert (verdict.use, verdict.headline, verdict.because) == ("v1", "Use v1.", "")
    others = dict(verdict.others)
    assert others["v2"].startswith("not distinguishable from no LoRA on the words")
    assert others["v3"].startswith("worse than no LoRA on the words")


def test_a_tie_goes_to_fewer_steps_then_to_the_smaller_rank() -> None:
    even = dict.fromkeys([("v1", "v2"), ("v1", "v3"), ("v2", "v3")], "not distinguishable")
    found = scores(learned("v1", "v2", "v3"), means={"v1": 0.9, "v2": 0.8, "v3": 0.7}, pairs=even)
    verdict = judge(found, EFFORTS, metrics=METRICS)
    assert verdict.use == "v3"
    assert set(verdict.tied) == {"v1", "v2"}
    assert "not distinguishable" in verdict.because and "smallest rank" in verdict.because
    claims = " ".join(verdict.not_claimed)
    assert "That v3 is better than v1" in claims and "That v3 is better than v2" in claims


def test_what_is_worse_than_the_best_is_not_part_of_the_tie() -> None:
    apart = {("v1", "v2"): "better", ("v1", "v3"): "better", ("v2", "v3"): "not distinguishable"}
    found = scores(learned("v1", "v2", "v3"), means={"v1": 0.9, "v2": 0.8, "v3": 0.7}, pairs=apart)
    verdict = judge(found, EFFORTS, metrics=METRICS)
    assert (verdict.use, verdict.tied) == ("v1", ())
    assert dict(verdict.others)["v2"].startswith("worse than v1")


def test_a_pair_may_be_stored_either_way_round() -> None:
    found = scores(learned("v1", "v2"), means={"v1": 0.9, "v2": 0.8}, pairs={("v2", "v1"): "worse"})
    assert judge(found, EFFORTS, metrics=METRICS).use == "v1"


def test_arms_that_were_never_compared_have_not_been_told_apart() -> None:
    verdict = judge(scores(learned("v1", "v2"), means={"v1": 0.9, "v2": 0.8}), EFFORTS, metrics=METRICS)
    assert verdict.use == "v2"
    assert "they were not compared" in " ".join(verdict.not_claimed)


def test_learning_at_the_cost_of_the_rest_of_the_prompt_is_not_enough() -> None:
    verdict = judge(scores(learned("v1", "v2", guard="worse")), EFFORTS, metrics=METRICS)
    assert verdict.use is None
    assert "worse on T2" in verdict.because
    others = dict(verdict.others)
    assert all(others[arm].startswith("learned the concept, but is worse") for arm in ("v1", "v2"))
    assert others["v3"] == "not measured on the words."


def test_an_unmeasured_guard_is_said() -> None:
    verdict = judge(scores({"v1": {"T1": "better"}}), EFFORTS, metrics=METRICS)
    assert verdict.use == "v1"
    assert "Not measured: T2" in " ".join(verdict.sure)


def test_similarity_decides_where_it_was_measured() -> None:
    found = scores({"v1": {"T1": "better", "similarity": "worse"}, "v2": {"T1": "worse", "similarity": "better"}})
    verdict = judge(found, EFFORTS, metrics=METRICS)
    assert (verdict.use, verdict.decided_by) == ("v2", "similarity")


def test_a_verdict_says_that_it_is_about_these_weights_and_uncalibrated() -> None:
    for found in (scores(learned("v1")), scores({"v1": {"T1": "worse"}})):
        said = " ".join(judge(found, EFFORTS, metrics=METRICS).not_claimed)
        assert "One LoRA per setting is one sample" in said
        assert "Uncalibrated" in said


words = st.sampled_from(WORDS)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(EFFORTS)), st.fixed_dictionaries({"T1": words, "T2": words})),
    st.dictionaries(st.sampled_from([("v1", "v2"), ("v1", "v3"), ("v2", "v3")]), words),
    st.fixed_dictionaries({arm: st.floats(0, 1) for arm in EFFORTS}),
)
def test_no_statistics_make_it_claim_more_than_they_say(
    of: dict[str, dict[str, str]], pairs: dict[tuple[str, str], str], means: dict[str, float]
) -> None:
    verdict = judge(scores(of, means=means, pairs=pairs), EFFORTS, metrics=METRICS)
    if verdict.use is None:
        assert not any(row["T1"] == "better" and row["T2"] != "worse" for row in of.values())
        return
    assert of[verdict.use]["T1"] == "better"
    assert of[verdict.use]["T2"] != "worse"
    claimed = " ".join((verdict.sentence, *verdict.sure))
    assert all(f"better than {arm}" not in claimed for arm in EFFORTS)
    for arm in verdict.tied:
        word = pairs.get((verdict.use, arm)) or pairs.get((arm, verdict.use)) or "not distinguishable"
        assert word == "not distinguishable"


def test_disagreement_between_the_literal_prompt_and_the_describing_words_is_said() -> None:
    found = scores({"v1": {"T0": "better", "T1": "better"}, "v2": {"T0": "better", "T1": "better"}})
    turned = {
        "v1": {"T0": found.arms["v1"]["T0"].model_copy(update={"mean": 0.9}), "T1": found.arms["v1"]["T1"]},
        "v2": {"T0": found.arms["v2"]["T0"], "T1": found.arms["v2"]["T1"].model_copy(update={"mean": 0.9})},
    }
    crossed = Scores(NOWHERE, found.metrics, turned, found.against_base, {}, ())
    assert "the literal prompt is the one to doubt" in str(disagreement(crossed, ["v1", "v2"], metrics=METRICS))
    assert disagreement(found, ["v1", "v2"], metrics=METRICS) is None
    assert disagreement(found, [], metrics=METRICS) is None


def test_numbers_are_written_with_true_signs() -> None:
    assert (signed(0.0124), signed(-0.004), signed(-0.0001)) == ("+0.012", "−0.004", "0.000")
    assert interval(None, None) == "no interval: one prompt has no spread"
    assert counted(Score(mean=0, n_prompts=8, n_images=16)) == "8 prompts × 2 seeds"
    assert counted(Score(mean=0, n_prompts=8, n_images=15)) == "8 prompts, 15 pictures"
    assert told(difference("better")).endswith("p\u00a0=\u00a00.020 after Holm")


def test_what_is_shown_to_be_equal_ties_like_what_cannot_be_told_apart() -> None:
    found = scores(learned("v1", "v2", guard="equivalent"), means={"v1": 0.9}, pairs={("v1", "v2"): "equivalent"})
    verdict = judge(found, EFFORTS, metrics=METRICS)
    assert (verdict.use, verdict.tied) == ("v2", ("v1",))
    assert "That v2 is better than v1 on the words: equivalent (" in " ".join(verdict.not_claimed)
    assert "it is equivalent to no LoRA" in " ".join(verdict.sure)


def test_what_was_not_found_says_how_many_prompts_it_would_take() -> None:
    found = scores(learned("v1"))
    found.against_base["v1"]["T2"] = difference("not distinguishable", mde=0.04, needs_prompts=70)
    sure = " ".join(judge(found, EFFORTS, metrics=METRICS).sure)
    assert "under 0.040 would often be missed, one like this would need n = 70 prompts" in sure


def test_a_p_says_how_it_was_adjusted() -> None:
    assert told(difference("better")).replace("\xa0", " ").endswith("p = 0.020 after Holm")
    explored = Difference(diff=0.1, p=0.01, p_bh=0.03, verdict="better")
    assert told(explored).replace("\xa0", " ").endswith("p = 0.030 after Benjamini–Hochberg, exploratory")
    assert adjusted_p(explored) == 0.03 and adjusted_p(Difference(diff=0.1, p=0.01, verdict="better")) == 0.01
