"""The verdict on studies whose truth is known: values are made up, everything after them is the real statistics."""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vez.metrics.rules import Gate, Rule
from vez.metrics.summary import summarise
from vez.report.caveats import disagreement
from vez.report.contest import BASE, axes_of, front, weigh
from vez.report.phrases import adjusted_p, counted, interval, signed, told
from vez.report.remedies import BY_METRIC
from vez.report.scored import Difference, Looked, Score, ScoreRow, Scores, parsed
from vez.report.verdict import Effort, Verdict, judge

MARGIN = 0.0375
RULES = {
    "T0": Rule(True),
    "T1": Rule(True, margin=MARGIN),
    "T2": Rule(True, primary=True, margin=MARGIN, guard=True),
    "similarity": Rule(True, primary=True, gate=Gate(0.15, "above")),
    "leak": Rule(False, gate=Gate(0.1, "below")),
    "copying": Rule(False, gate=Gate(0.2, "below", calibrated=True)),
    "made_up": Rule(True, gate=Gate(0.0, "above")),
}
AT = {"T0": 0.6, "T1": 0.6, "T2": 0.7}  # what no LoRA scores; the others 0
EFFORTS = {"v1": Effort(100, 8), "v2": Effort(50, 16), "v3": Effort(50, 8)}
Truth = Mapping[str, Mapping[str, float]]


def scored(truth: Truth, *, prompts: int = 12, noise: float = 0.01, seed: int = 0, **more: Any) -> Scores:
    """arm → metric → how far it lies from no LoRA; every prompt has its own level, every picture its own luck."""
    metrics = {metric for of in truth.values() for metric in of}
    confirming = more.get("confirming", ())
    names = [*(f"p{i}" for i in range(prompts)), *confirming]
    values: dict[str, dict[str, dict[tuple[str, int], float]]] = {}
    for metric in sorted(metrics):
        dice = random.Random(f"{metric} {seed}")
        level = {name: AT.get(metric, 0.0) + (dice.gauss(0, 0.03) if metric in AT else 0) for name in names}
        for arm in (*truth, BASE):
            gain = truth.get(arm, {BASE: 0.0}).get(metric, 0.0 if arm == BASE else None)
            if gain is not None:
                values.setdefault(metric, {})[arm] = {
                    (name, s): level[name] + gain + dice.gauss(0, noise) for name in names for s in range(2)
                }
    rules = {metric: RULES[metric] for metric in values}
    summary: dict[str, Any] = summarise(values, rules=rules, base=BASE, **more)
    summary["metrics"] = {
        name: {"definition": name, "higher_is_better": of.higher_is_better, "primary": of.primary, "margin": of.margin,
               "guard": of.guard, "gate": None if of.gate is None else vars(of.gate)}
        for name, of in rules.items()
    }  # fmt: skip
    rows = tuple(
        ScoreRow(arm=arm, prompt=prompt, seed=s, metric=metric, value=value)
        for metric, of_arm in values.items()
        for arm, cells in of_arm.items()
        for (prompt, s), value in cells.items()
    )
    return parsed(summary, rows=rows)


def on(*, similarity: float = 0.5, rest: float = 0.0, **more: float) -> dict[str, float]:
    return {"similarity": similarity, "T2": rest, **more}


def said(verdict: Verdict) -> str:
    parts = (verdict.sentence, *verdict.sure, *verdict.not_claimed, *verdict.would_change)
    return " ".join((*parts, *(f"{of.arm}: {of.why} {of.attempt}" for of in verdict.refused))).replace("\xa0", " ")


def test_nothing_scored_names_nothing() -> None:
    verdict = judge(None, EFFORTS)
    assert verdict.use is None and "no LoRA can be named" in verdict.sentence
    assert [(of.arm, of.why) for of in verdict.refused] == [(arm, "not measured.") for arm in EFFORTS]
    assert judge(scored({"v1": {"leak": 0.0}}), EFFORTS).use is None


# name, truth, options of judge or of scored, the arm to use, what has to be said, and what must not be
CASES: list[tuple[str, Truth, dict[str, Any], str | None, list[str], list[str]]] = [
    ("only one learned", {"v1": on(), "v2": on(similarity=0), "v3": on(similarity=-0.3)}, {}, "v1",
     ["Use v1.", "v2: not distinguishable from no LoRA", "v3: worse than no LoRA", "lr_unet × 3"], ["Use v2"]),
    ("one beats the others on both", {"v1": on(similarity=0.8), "v2": on(similarity=0.4)}, {}, "v1",
     ["v2: worse than v1 on similarity", "and no better on the other"], ["not distinguishable from it"]),
    ("equals: fewer steps", {"v1": on(), "v2": on(), "v3": on(similarity=0)}, {"noise": 0.05, "seed": 1}, "v2",
     ["v1 is not distinguishable from it; it took fewer steps", "That v2 is better than v1"], []),
    ("equals: smaller rank", {"v2": on(), "v3": on()}, {"noise": 0.05, "seed": 1}, "v3",
     ["it has the smaller rank"], []),
    ("paints over", {"v1": on(), "v2": on(similarity=0.9, rest=-0.2)}, {}, "v1",
     ["v2: learned the concept, but paints over the rest of the prompt", "a lower strength"], []),
    ("a loss shown to be small is none", {"v1": on(rest=-0.01)}, {}, "v1",
     ["worse than no LoRA", "shown to lose less than 0.0375"], ["paints over"]),
    ("a guess of a limit never puts the worse one first", {"v1": on(leak=0.4), "v2": on(similarity=0.3, leak=0.0)}, {},
     "v1", ["But know that it brings the concept where nobody asked for it, by a limit that is a guess.",
     "v2: worse than v1 on similarity"], ["no LoRA here keeps every limit"]),
    ("a guess of a limit decides between equals", {"v1": on(leak=0.0), "v2": on(leak=0.4)}, {"noise": 0.05, "seed": 1},
     "v1", ["v2 is not distinguishable from it; it breaks none of the limits that are guesses"], ["But know"]),
    ("of two guesses one", {"v1": on(leak=0.4), "v2": on(leak=0.4, made_up=-1)}, {"noise": 0.05, "seed": 1},
     "v1", ["it breaks fewer of the limits that are guesses", "no LoRA here keeps every limit"], []),
    ("a limit that rules out", {"v1": on(copying=0.9)}, {}, None,
     ["No LoRA of this study can be recommended", "copies its training pictures", "v1 comes nearest", "fewer steps"],
     ["Use v1"]),
    ("all break a guess of a limit", {"v1": on(leak=0.4), "v2": on(leak=0.5, made_up=-1)}, {}, "v1",
     ["But know that it brings the concept where nobody asked for it: no LoRA here keeps every limit"], []),
    ("a limit nobody wrote a remedy for", {"v1": on(made_up=-1)}, {}, "v1",
     ["But know that it fails a limit, by a limit that is a guess."], []),
    ("a broken measured limit says the guess too", {"v1": on(copying=0.9, leak=0.4)}, {}, None,
     ["It also brings the concept where nobody asked"], []),
    ("none learned", {"v1": on(similarity=0), "v2": on(similarity=-0.1)}, {}, None,
     ["None is better than no LoRA on similarity", "no proof that nothing was learned"], []),
    ("too few prompts", {"v1": on(), "v2": on()}, {"prompts": 3}, None, ["With so few prompts no difference"], []),
    ("the words alone", {"v1": {"T1": 0.1}}, {"explored": ()}, "v1",
     ["The describing words (T1): 0.", "Not measured: the rest of the prompt"], ["similarity"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("truth", "more", "use", "told_", "untold"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_branches(truth: Truth, more: dict[str, Any], use: str | None, told_: list[str], untold: list[str]) -> None:
    verdict = judge(scored(truth, **more), {arm: EFFORTS[arm] for arm in truth})
    text = said(verdict)
    assert verdict.use == use, text
    for words in told_:
        assert words in text, text
    for words in untold:
        assert words not in text, text


TRADE = {"v1": on(similarity=0.9, rest=-0.03), "v2": on(similarity=0.5, rest=0.05)}


@pytest.mark.parametrize(("weight", "use"), [(1.0, "v1"), (0.0, "v2")])
def test_where_neither_beats_the_other_the_weight_decides(weight: float, use: str) -> None:
    found = scored(TRADE)
    verdict = judge(found, {"v1": Effort(1, 1), "v2": Effort(1, 1)}, weight=weight)
    assert verdict.use == use and verdict.front == ("v1", "v2") and not verdict.dominated
    other = "v2" if use == "v1" else "v1"
    assert verdict.runner_up == other
    assert f"{other}: on the front, but worse than {use} by the weight that was set" in said(verdict)
    assert f"it would be {other}." in said(verdict)
    assert said(verdict).count("If only") == 1


def test_two_are_told_apart_only_with_confidence() -> None:
    near = scored({"v1": on(similarity=0.52), "v2": on(similarity=0.5)}, noise=0.1, seed=2)
    axes = axes_of(near, ["v1", "v2"])
    assert axes is not None
    assert front(near, ["v1", "v2"], axes) == (("v1", "v2"), {})
    assert set(weigh(near, ["v1", "v2"], axes, weight=0.5).tied) == {"v1", "v2"}
    # better on one axis is not enough: on the other it has to be shown to be no worse
    unsure = scored({"v1": on(similarity=0.9, rest=0.0), "v2": on(similarity=0.3, rest=0.0)}, noise=0.12, prompts=8)
    assert front(unsure, ["v1", "v2"], axes)[1] == {}


def test_less_than_the_best_by_more_than_a_standard_error_is_no_tie() -> None:
    found = scored({"v1": on(similarity=0.5), "v2": on(similarity=0.6)}, prompts=8, noise=0.08, seed=3)
    verdict = judge(found, {"v1": Effort(5, 4), "v2": Effort(50, 64)})
    assert verdict.use == "v2" and verdict.tied == ("v1",)
    assert "v1 is not distinguishable from it; it has the highest mean" in verdict.because


def test_where_the_rest_differs_by_less_than_would_matter_the_concept_alone_counts() -> None:
    arms = {"v1": on(similarity=0.5, rest=0.03), "v2": on(similarity=0.56, rest=0.0)}
    found = scored(arms, noise=0.002)
    axes = axes_of(found, ["v1", "v2"])
    assert axes is not None
    assert weigh(found, ["v1", "v2"], axes, weight=0.1).best == "v2", "0.03 lies within the margin of 0.0375"
    assert weigh(found, ["v1", "v2"], axes, weight=0.0).best == "v1", "nothing but the rest was asked for"
    further = scored({**arms, "v1": on(similarity=0.5, rest=0.06)}, noise=0.002)
    assert weigh(further, ["v1", "v2"], axes, weight=0.1).best == "v1"


def test_a_tie_goes_to_fewer_steps_then_lower_strength_then_smaller_rank() -> None:
    found = scored({"v1": on(), "v2": on(), "v3": on()}, noise=0.0)
    for efforts, use, why in (
        ([(9, 9, 1), (5, 9, 1), (7, 1, 0.5)], "v2", "took the fewest steps"),
        ([(5, 1, 1), (5, 9, 0.6), (5, 2, 0.8)], "v2", "is merged at the lowest strength"),
        ([(5, 8, 1), (5, 4, 1), (5, 9, 1)], "v2", "has the smallest rank"),
        ([(5, 4, 1), (5, 4, 1), (7, 4, 1)], None, "nothing tells them apart"),
        ([(None, None, 1), (5, 4, 1), (5, 4, 1)], None, "nothing tells them apart"),
        ([(5, 8, 1), (5, 4, 1), (7, 4, 1)], "v2", "none took fewer steps"),
    ):
        costs = {f"v{i}": Effort(steps, rank, strength) for i, (steps, rank, strength) in enumerate(efforts, start=1)}
        verdict = judge(found, costs)
        assert verdict.use == use or use is None
        assert why in verdict.because, (efforts, verdict.because)


def test_checkpoint_and_strength_are_named_and_a_find_of_the_sweep_is_called_one() -> None:
    truth = {"v1": on(similarity=0.2), "v1@50x0.8": on(similarity=0.9)}
    efforts = {"v1": Effort(100, 8), "v1@50x0.8": Effort(50, 8, 0.8, called="v1, step 50, strength 0.8")}
    verdict = judge(scored(truth, explored=["v1@50x0.8"]), efforts)
    assert verdict.headline == "Use v1, step 50, strength 0.8."
    assert "exploratory one" in said(verdict)
    assert "vez sample --profile confirm --arms v1@50x0.8" in said(verdict)


def test_confirmed_numbers_are_reported_and_selections_bias_is_said_where_there_are_none() -> None:
    truth, confirming = {"v1": on(), "v2": on(similarity=0.2)}, [f"g{i}" for i in range(8)]
    without = said(judge(scored(truth), EFFORTS_OF(truth)))
    assert (
        "the best of several looks better than it is (of 2 equal ones by 0." in without and "Confirmed" not in without
    )
    found = scored(truth, confirming=confirming)
    assert not {prompt for cells in found.cells.values() for prompt, _ in cells} & set(confirming)
    told_ = judge(found, EFFORTS_OF(truth))
    assert told_.sure[0].startswith("Confirmed on 8 prompts that had no say in the choice: similarity")
    assert "the best of several" not in said(told_) and "--profile confirm" not in said(told_)
    refuted = found.confirmed
    assert refuted is not None
    change = refuted.against_base["v1"]["similarity"].model_copy(update={"verdict": "not distinguishable"})
    refuted.against_base["v1"]["similarity"] = change
    assert "do not bear it out" in judge(found, EFFORTS_OF(truth)).sure[0]


def looked(truth: Truth, *, noise: float = 0.01, **looks: Any) -> Scores:
    found = scored(truth, noise=noise, alpha=looks["alpha"])
    return replace(found, looks=Looked.model_validate({"planned": looks["look"] <= looks["of"], **looks}))


def test_which_look_it_is_stands_in_the_verdict_and_so_does_the_next() -> None:
    truth = {"v1": on(), "v2": on(similarity=0.2)}
    first = judge(looked(truth, look=1, of=2, alpha=0.0056), EFFORTS_OF(truth))
    assert "This is the first of 2 planned looks: 0.56 % of the 5 % error is spent on it" in first.sure[0]
    assert first.would_change[0].startswith("More pictures, as the second of 2 planned looks")
    last = judge(looked(truth, look=2, of=2, alpha=0.0444), EFFORTS_OF(truth))
    assert "4.4 % of the 5 % error was left for it" in last.sure[0]
    assert "planned looks" not in " ".join(last.would_change)
    assert "look" not in said(judge(scored(truth), EFFORTS_OF(truth))).replace("looks better than it is", "")


def test_a_look_beyond_the_plan_is_exploratory_and_no_find_of_a_sweep() -> None:
    truth = {"v1": on(), "v2": on(similarity=0.2)}
    verdict = judge(looked(truth, look=2, of=1, alpha=0.0, asked=2), EFFORTS_OF(truth))
    assert verdict.because.startswith("But this is look 2 where 1 was planned, so it is exploratory.")
    assert "after Benjamini–Hochberg, exploratory" in said(verdict) and "find of the sweep" not in said(verdict)
    assert "vez.toml says looks = 2, but the plan that was recorded at the first look" in said(verdict)


def test_the_front_is_weighed_by_what_is_left_of_the_error() -> None:
    truth = {"v1": on(similarity=0.5), "v2": on(similarity=0.488)}
    alone = scored(truth, noise=0.02)
    axes = axes_of(alone, EFFORTS_OF(truth))
    assert axes is not None
    assert weigh(alone, ["v1", "v2"], axes, weight=1.0).lower
    early = replace(alone, looks=Looked(look=1, of=5, alpha=1.2e-5, planned=True))
    assert not weigh(early, ["v1", "v2"], axes, weight=1.0).lower


def EFFORTS_OF(truth: Truth) -> dict[str, Effort]:
    return {arm: EFFORTS[arm] for arm in truth}


def test_a_setting_is_spoken_of_where_there_are_three_training_seeds() -> None:
    truth = {f"v1-{seed}": on(similarity=0.5 + 0.02 * seed) for seed in range(3)}
    found = scored(truth, settings={arm: ("v1", seed) for seed, arm in enumerate(truth)})
    text = said(judge(found, {arm: Effort(5, 4, setting="v1") for arm in truth}))
    assert "Over 3 training seeds the setting v1 is better than no LoRA" in text
    assert "One LoRA per setting is one sample" not in text
    two = scored(dict(list(truth.items())[:2]), settings={arm: ("v1", s) for s, arm in enumerate(list(truth)[:2])})
    assert "One LoRA per setting is one sample" in said(
        judge(two, {arm: Effort(5, 4, setting="v1") for arm in list(truth)[:2]})
    )


def test_a_guess_that_is_broken_is_printed_as_one() -> None:
    (warning,) = judge(scored({"v1": on(leak=0.4)}), {"v1": EFFORTS["v1"]}).reserve
    assert "the limit is at most 0.100, uncalibrated" in warning.why and "prior" in warning.attempt


def test_uncalibrated_limits_are_called_so_and_calibrated_ones_are_not() -> None:
    assert "Uncalibrated" in said(judge(scored({"v1": on()}), {"v1": EFFORTS["v1"]}))
    found = scored({"v1": on(copying=0.0)})
    for of in found.gates["v1"].values():
        for kind, kept in of.items():
            of[kind] = kept.model_copy(update={"calibrated": True})
    assert "Uncalibrated" not in said(judge(found, {"v1": EFFORTS["v1"]}))


gains = st.sampled_from([-0.3, 0.0, 0.03, 0.3, 0.6])


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(sorted(EFFORTS)), st.fixed_dictionaries({"similarity": gains, "T2": gains}), min_size=1
    ),
    st.sampled_from([0.01, 0.3]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_no_statistics_make_it_claim_more_than_they_say(truth: Truth, noise: float, weight: float) -> None:
    found = scored(truth, noise=noise, prompts=8)
    verdict = judge(found, EFFORTS_OF(truth), weight=weight)
    words = {arm: {metric: of.verdict for metric, of in row.items()} for arm, row in found.against_base.items()}
    named = {verdict.use, *verdict.tied, *(of.arm for of in verdict.refused)} - {None}
    assert named == set(truth), "every LoRA has its place"
    if verdict.use is None:
        assert all(of.why for of in verdict.refused)
        return
    assert words[verdict.use]["similarity"] == "better"
    assert found.gates[verdict.use]["T2"]["not_worse"].word != "failed"
    claimed = " ".join((verdict.sentence, *verdict.sure))
    assert all(f"better than {arm}" not in claimed for arm in EFFORTS)


def test_disagreement_between_the_literal_prompt_and_the_describing_words_is_said() -> None:
    crossed = scored({"v1": {"T0": 0.2, "T1": 0.0}, "v2": {"T0": 0.0, "T1": 0.2}})
    assert "the literal prompt is the one to doubt" in str(disagreement(crossed, ["v1", "v2"]))
    agreed = scored({"v1": {"T0": 0.2, "T1": 0.2}, "v2": {"T0": 0.0, "T1": 0.0}})
    assert disagreement(agreed, ["v1", "v2"]) is None and disagreement(agreed, []) is None


def test_numbers_are_written_with_true_signs() -> None:
    assert (signed(0.0124), signed(-0.004), signed(-0.0001)) == ("+0.012", "−0.004", "0.000")
    assert interval(None, None) == "no interval: one prompt has no spread"
    assert counted(Score(mean=0, n_prompts=8, n_images=16)) == "8 prompts × 2 seeds"
    assert counted(Score(mean=0, n_prompts=8, n_images=15)) == "8 prompts, 15 pictures"


def test_a_p_says_how_it_was_adjusted() -> None:
    decided = Difference(diff=0.1, p=0.01, p_holm=0.02, verdict="better")
    assert told(decided).replace("\xa0", " ").endswith("p = 0.020 after Holm")
    explored = Difference(diff=0.1, p=0.01, p_bh=0.03, verdict="better")
    assert told(explored).replace("\xa0", " ").endswith("p = 0.030 after Benjamini–Hochberg, exploratory")
    assert adjusted_p(explored) == 0.03 and adjusted_p(Difference(diff=0.1, p=0.01, verdict="better")) == 0.01


def test_every_metric_with_a_limit_has_a_remedy() -> None:
    from vez.metrics.rules import RULES as DECLARED

    judged = {name for name, rule in DECLARED.items() if rule.gate or rule.guard}
    assert judged <= set(BY_METRIC)
