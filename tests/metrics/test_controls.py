"""The checks on the evaluator: they pass where all is well, and fail where it is not."""

from dataclasses import replace

import numpy as np
import pytest
from known import CLASS, World

from vez.metrics.controls import controls, failed, halves, held_out, training_copies
from vez.metrics.definitions import METRICS, Material
from vez.metrics.rules import RULES, Rule, declared
from vez.metrics.summary import Values

PRIMARY = {"T2": Rule(True, primary=True), "T0": Rule(True)}


@pytest.fixture(scope="module")
def known() -> Material:
    return World().material({"oracle": ("oracle", 1.0), "any_word": ("any_word", 1.0)})


def test_held_out_pictures_score_as_real_and_uncopied(known: Material) -> None:
    found = held_out(known)
    assert found is not None and found["ok"] and found["similarity"]["n"] == 6
    assert 0.8 < found["similarity"]["mean"] < 1.2 and found["copying"] == 0


def test_training_pictures_score_as_real_and_raise_the_alarm(known: Material) -> None:
    found = training_copies(known)
    assert found is not None and set(found) == {"oracle", "any_word"}
    of = found["oracle"]
    assert of["ok"] and of["copying"] == 1 and of["copies"] == 1 and 0.7 < of["similarity"]["mean"] < 1.2


def test_held_out_pictures_that_are_training_pictures_are_found_out(known: Material) -> None:
    view = known.clip
    same = replace(known, clip=replace(view, reference=view.training["oracle"][:6]))
    found = held_out(same)
    assert found is not None and not found["ok"] and found["copying"] == 1
    told = controls(same, {}, {}, strength_0=None)
    assert any("held-out pictures" in sentence for sentence in failed(told))


def test_held_out_pictures_of_two_concepts_are_found_out(known: Material) -> None:
    view = known.clip
    assert view.gallery is not None
    mixed = np.stack([row for pair in zip(view.reference[:3], view.gallery[:3], strict=True) for row in pair])
    found = held_out(replace(known, clip=replace(view, reference=mixed)))
    assert found is None or not found["ok"]


def test_training_pictures_that_lie_on_one_another_raise_no_alarm_and_that_is_said(known: Material) -> None:
    view, one = known.clip, known.clip.training["oracle"]
    doubled = np.concatenate([one, one])  # each has its own copy beside it: nothing can be nearer than that
    m = replace(known, clip=replace(view, training={"oracle": doubled}))
    found = training_copies(m)
    assert found is not None and not found["oracle"]["ok"]
    assert any("raise no alarm" in sentence for sentence in failed(controls(m, {}, {}, strength_0=None)))


def values(shift: float, *, seed: int = 0) -> Values:
    dice = np.random.default_rng(seed)
    return {
        "v1": {(f"p{p}", s): float(dice.normal(0, 0.1)) + shift * (s % 2) for p in range(12) for s in range(4)},
        "v2": {(f"p{p}", s): float(dice.normal(0, 0.1)) for p in range(12) for s in range(4)},
    }


def test_halves_of_one_arm_do_not_differ_unless_a_noise_does() -> None:
    fine = halves({"T2": values(0), "T0": values(0)}, PRIMARY)
    assert set(fine) == {"v1", "v2"} and set(fine["v1"]) == {"T2"}  # only what decides
    assert fine["v1"]["T2"]["ok"] and fine["v1"]["T2"]["p_holm"] > 0.05 and fine["v1"]["T2"]["n_prompts"] == 12
    broken = halves({"T2": values(0.5), "T0": values(0)}, PRIMARY)
    assert not broken["v1"]["T2"]["ok"] and broken["v2"]["T2"]["ok"] and broken["v1"]["T2"]["diff"] < -0.3


def test_halves_of_equal_arms_alarm_as_seldom_as_they_must() -> None:
    alarms = [not halves({"T2": values(0, seed=seed)}, PRIMARY)["v1"]["T2"]["ok"] for seed in range(100)]
    assert sum(alarms) <= 8


def test_one_noise_has_no_halves() -> None:
    assert halves({"T2": {"v1": {(f"p{p}", 0): 1.0 for p in range(12)}}}, PRIMARY) == {}


def test_the_wrong_trigger_and_what_sampling_saw_are_told(known: Material) -> None:
    found = {metric.name: metric.measure(known) for metric in METRICS if metric.name != "copies"}
    told = controls(known, found, declared([n for n in RULES if found.get(n)]), strength_0={"oracle": 0, "any_word": 3})
    assert abs(told["wrong_trigger"]["oracle"]["mean"]) < 0.01 < 0.5 < told["wrong_trigger"]["any_word"]["low"]
    assert told["strength_0"] == {"levels": {"oracle": 0, "any_word": 3}, "ok": False}
    assert failed(told) == ["a LoRA at strength 0 does not draw what the base draws: sample again"]


def test_where_there_is_nothing_to_check_with_nothing_is_claimed(known: Material) -> None:
    view = replace(known.clip, reference=known.clip.reference[:2], training={})
    told = controls(replace(known, clip=view), {}, {}, strength_0=None)
    assert told["held_out"] is None and told["training_copies"] is None and failed(told) == []
    flat = replace(known.clip, reference=np.stack([CLASS] * 6))
    assert held_out(replace(known, clip=flat, base=None)) is None
