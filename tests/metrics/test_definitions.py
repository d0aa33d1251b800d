"""Each metric on material whose right answer is known (`known`): it moves as it should, and nothing else does."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from known import CLASS, FAULTS, PROJECT, WIDTH, World, moved, unit

from vez.config import Project
from vez.metrics.definitions import METRICS, Drawn, Material, View, describing, measure
from vez.metrics.embed import clip_for, load
from vez.metrics.likeness import average_precision, likeness_span
from vez.metrics.limits import LIMITS, TINY
from vez.metrics.material import scenes
from vez.metrics.rules import BY_JUDGE, INSTEAD, RULES, Gate, declared, gated
from vez.metrics.stats import prompt_means, t_interval
from vez.metrics.summary import Values
from vez.metrics.texts import contrasts

BY_NAME = {metric.name: metric for metric in METRICS}
SLOW = {"copies", "repeats"}  # lays pictures over one another: tested on few
NEEDS_ANOTHER_ENCODER = {"similarity_clip"}
TOLERANCE = 0.02

# fault → what it must do to a metric, seen from the oracle: + up, - down. What is not named may not move.
LIKENESS = ("similarity", "foreground", "similarity_seen", "similarity_composition", "similarity_own")
EXACTLY = {
    "leaky": {"leak": +1, "drift_near": +1},
    "unbound": {"trigger_effect": -1, "specificity": -1},
    "any_word": {"specificity": +1},
    "drifter": {"drift": +1, "unrelated": -1},
    "tinted": {"colour_drift": +1},
    "vivid": {"saturation_drift": +1},
    "blank": {"flat": +1},
    "soft": {"blur": +1},
    "lettered": {"lettering": +1},
}
# These draw other pictures of the concept's own prompts, so that several metrics of those see them.
AT_LEAST = {
    "class_only": dict.fromkeys((*LIKENESS, "T1", "T3", "told_apart", "gallery", "trigger_effect"), -1),
    "lookalike": dict.fromkeys((*LIKENESS, "T1", "T3", "told_apart", "gallery", "gallery_first", "trigger_effect"), -1),
    "copier": {"nearest_training": +1, "copying": +1, "overfit": +1, "T2": -1, "diversity": -1},
    "repeater": {"diversity": -1},
    "overfitter": {"overfit": +1, "nearest_training": +1},
    "blind": {"T2": -1, "T2_composition": -1, "T0": -1, "T1": -1},
}
NEVER = {
    **dict.fromkeys(("class_only", "lookalike"), ("copying", "overfit+")),
    "repeater": ("copying", "overfit", "gallery"),
    "overfitter": ("gallery", "told_apart", "copying"),
    "blind": ("similarity", "gallery", "copying", "overfit", "trigger_effect", "nearest_training"),
    "copier": ("gallery",),
}
ELSEWHERE = ("leak", "drift", "drift_near", "colour_drift", "saturation_drift", "specificity", "unrelated", "flat",
             "blur", "lettering")  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def known(world: World) -> Material:
    return world.material()


@pytest.fixture(scope="module")
def values(known: Material) -> dict[str, Values]:
    return {metric.name: metric.measure(known) for metric in METRICS if metric.name not in SLOW}


def mean(values: Mapping[str, Values], metric: str, arm: str) -> float:
    return float(np.mean(list(values[metric][arm].values())))


def change(values: Mapping[str, Values], metric: str, arm: str) -> float:
    return mean(values, metric, arm) - mean(values, metric, "oracle")


def measured(m: Material) -> dict[str, Values]:
    return {metric.name: metric.measure(m) for metric in METRICS if metric.name not in SLOW}


@pytest.mark.parametrize("fault", EXACTLY)
def test_a_fault_moves_its_metric_and_no_other(fault: str, values: dict[str, Values]) -> None:
    for metric in values.keys() - NEEDS_ANOTHER_ENCODER:
        sign, by = EXACTLY[fault].get(metric, 0), change(values, metric, fault)
        assert by * sign > TOLERANCE if sign else by == pytest.approx(0, abs=1e-5), metric


@pytest.mark.parametrize("fault", AT_LEAST)
def test_what_draws_the_concept_wrongly_shows_where_it_must(fault: str, values: dict[str, Values]) -> None:
    for metric, sign in AT_LEAST[fault].items():
        assert change(values, metric, fault) * sign > TOLERANCE, metric
    for metric in (*NEVER[fault], *ELSEWHERE):
        by = change(values, metric.removesuffix("+"), fault)
        assert by < TOLERANCE + 0.05 if metric.endswith("+") else abs(by) < TOLERANCE, metric


DOSED = {
    "lookalike": {"similarity": -1, "gallery": -1, "T3": -1, "trigger_effect": -1},
    "class_only": {"similarity": -1, "foreground": -1, "T1": -1},
    "leaky": {"leak": +1, "drift_near": +1},
    "unbound": {"trigger_effect": -1},
    "any_word": {"specificity": +1},
    "copier": {"nearest_training": +1, "T2": -1},
    "repeater": {"diversity": -1},
    "overfitter": {"overfit": +1},
    "blind": {"T2": -1},
    "drifter": {"drift": +1, "unrelated": -1},
    "tinted": {"colour_drift": +1},
    "vivid": {"saturation_drift": +1},
    "soft": {"blur": +1},
}


@pytest.mark.parametrize("fault", DOSED)
def test_more_of_a_fault_moves_it_further(fault: str, world: World) -> None:
    doses = {f"d{i}": (fault, i / 4) for i in range(5)}
    m = world.material(doses)
    for metric, sign in DOSED[fault].items():
        found = BY_NAME[metric].measure(m)
        means = [np.mean(list(found[arm].values())) for arm in doses]
        if metric == "gallery":  # full for as long as all of the concept ranks first
            assert means[0] == max(means) and means[-1] == min(means) and np.all(np.diff(means) * sign >= 0)
        else:
            assert np.all(np.diff(means) * sign > 0), (metric, means)


def test_the_scale_is_0_for_the_base_and_near_1_for_more_real_pictures(values: dict[str, Values]) -> None:
    for metric in LIKENESS:
        assert mean(values, metric, "base") == pytest.approx(0, abs=1e-5)
        assert 0.6 < mean(values, metric, "oracle") < 1.05


def test_what_no_lora_drew_has_no_distance_to_itself(values: dict[str, Values]) -> None:
    for metric in ("drift", "drift_near", "colour_drift", "nearest_training", "copying", "overfit"):
        assert "base" not in values[metric] and "oracle" in values[metric]


def test_the_gates_pass_the_oracle_and_catch_each_fault(values: dict[str, Values]) -> None:
    def word(metric: str, arm: str) -> str:
        gate = RULES[metric].gate
        assert gate is not None and not gate.calibrated
        return gated(gate, t_interval(list(prompt_means(values[metric][arm]).values())))

    caught = {
        "similarity": "class_only", "trigger_effect": "unbound", "leak": "leaky", "drift": "drifter",
        "specificity": "any_word", "copying": "copier", "diversity": "repeater", "flat": "blank",
    }  # fmt: skip
    for metric, fault in caught.items():
        assert word(metric, fault) != "passed", metric
        assert word(metric, "oracle") == "passed" or metric == "diversity"
    assert word("leak", "leaky") == word("drift", "drifter") == word("copying", "copier") == "failed"


def test_one_picture_again_is_found_though_it_is_moved(world: World) -> None:
    m = world.material({"same": ("oracle", 1.0)})
    assert m.pixels is not None
    of = [i for i in scenes(m) if m.drawn[i].arm == "same"]
    rng = np.random.default_rng(3)
    greys = [rng.integers(0, 256, m.pixels.greys[0].shape, dtype=np.uint8) for _ in m.drawn]
    for k, i in enumerate(of[: len(of) // 2]):
        greys[i] = np.roll(m.pixels.greys[of[0]], k % 4, axis=1)
    found = BY_NAME["repeats"].measure(replace(m, pixels=replace(m.pixels, greys=tuple(greys))))
    values = [found["same"][m.drawn[i].prompt, m.drawn[i].seed] for i in of]
    half = len(of) // 2
    assert np.mean(values[:half]) > 0.9 and not any(values[half:]) and set(found) == {"base", "same"}
    assert BY_NAME["repeats"].measure(replace(m, pixels=None)) == {}


def test_diversity_is_counted_in_what_the_base_gives_prompts_it_understands(known: Material) -> None:
    """A base to which the trigger means nothing brings anything: beside that whoever draws one costume looks dull."""
    wild = np.random.default_rng(5).normal(size=known.judge.images.shape)
    wild /= np.linalg.norm(wild, axis=1, keepdims=True)
    asked = set(scenes(known))
    of_base = np.array([i in asked and d.arm == known.base for i, d in enumerate(known.drawn)])
    images = np.where(of_base[:, None], wild, known.judge.images)
    found = BY_NAME["diversity"].measure(with_view(known, images=images))
    before = BY_NAME["diversity"].measure(known)
    assert mean({"d": found}, "d", "oracle") == mean({"d": before}, "d", "oracle")
    assert mean({"d": found}, "d", "base") > 2 * mean({"d": before}, "d", "base")


def test_copies_are_found_though_they_are_moved_and_mirrored(world: World) -> None:
    m = world.material({"oracle": ("oracle", 1.0), "copier": ("copier", 0.67)}, sets="A")
    found = BY_NAME["copies"].measure(m)
    assert np.mean(list(found["oracle"].values())) == 0 and "base" not in found
    # noises 0, 1 and 2 of which two are copies; the fourth-likeliest training pictures are looked at, no more
    assert {(key[1], value) for key, value in found["copier"].items()} <= {(0, 1.0), (1, 1.0), (2, 0.0), (2, 1.0)}
    assert np.mean(list(found["copier"].values())) > 0.5


def test_the_second_encoder_judges_and_clip_is_the_second_opinion(world: World, known: Material) -> None:
    m = world.material({"oracle": ("oracle", 1.0)}, dino=True)
    assert m.dino is not None and m.judge is m.dino and known.judge is known.clip
    dice = np.random.default_rng(0)
    noise = replace(m.dino, images=np.stack([unit(dice.normal(0, 1, WIDTH)) for _ in m.drawn]))
    blinded = replace(m, dino=noise)
    assert BY_NAME["similarity_clip"].measure(m) == BY_NAME["similarity"].measure(m)
    assert BY_NAME["similarity_clip"].measure(blinded) == BY_NAME["similarity"].measure(m)
    assert abs(mean({"similarity": BY_NAME["similarity"].measure(blinded)}, "similarity", "oracle")) < 0.3
    assert BY_NAME["T1"].measure(blinded) == BY_NAME["T1"].measure(m)
    assert BY_NAME["similarity_clip"].measure(known) == {}


def test_clipscore_is_the_published_formula(known: Material, values: dict[str, Values]) -> None:
    at = next(i for i, d in enumerate(known.drawn) if (d.arm, d.prompt, d.seed) == ("oracle", "B-trigger-B2", 1))
    for metric, text in {"T0": known.drawn[at].text, "T2": "scene 2"}.items():
        cosine = float(known.clip.images[at] @ known.texts[text])
        assert values[metric]["oracle"]["B-trigger-B2", 1] == pytest.approx(2.5 * max(cosine, 0), abs=1e-6)
    opposite = replace(known, texts={name: -vector for name, vector in known.texts.items()})
    assert mean({"T2": BY_NAME["T2"].measure(opposite)}, "T2", "base") == 0


def test_the_margin_is_to_the_mean_of_the_lookalikes(known: Material, values: dict[str, Values]) -> None:
    at = next(i for i, d in enumerate(known.drawn) if (d.arm, d.prompt, d.seed) == ("lookalike", "B-trigger-B2", 1))
    own, bulgarian, modern = (
        float(known.clip.images[at] @ known.texts[f"{words} in scene 2"])
        for words in ("traditional Serbian folk costume", "Bulgarian folk costume", "modern dress")
    )
    expected = 2.5 * (own - (bulgarian + modern) / 2)
    assert values["T3"]["lookalike"]["B-trigger-B2", 1] == pytest.approx(expected, abs=1e-6)
    assert values["told_apart"]["lookalike"]["B-trigger-B2", 1] == float(own > max(bulgarian, modern))


def test_average_precision_by_hand() -> None:
    assert average_precision(np.array([True, True, False])) == 1
    assert average_precision(np.array([False, True, False, True])) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert average_precision(np.array([False, False, True])) == pytest.approx(1 / 3)


def test_the_primary_metrics_are_about_set_b(known: Material, values: dict[str, Values]) -> None:
    for metric in ("T1", "T2", "similarity", "diversity"):
        assert {prompt[0] for prompt, _ in values[metric]["oracle"]} == {"B"}
    assert {prompt[0] for prompt, _ in values["nearest_training"]["oracle"]} == {"A", "B", "C", "u"}
    assert {prompt[0] for prompt, _ in values["leak"]["oracle"]} == {"E"}
    # older samples, and prompts of one's own alone, name no sets: then all count
    nameless = replace(known, drawn=tuple(replace(d, set="") for d in known.drawn))
    assert {p[0] for p, _ in BY_NAME["T1"].measure(nameless)["oracle"]} == {"A", "B", "C", "u"}
    assert {p[0] for p, _ in BY_NAME["leak"].measure(nameless)["oracle"]} == {"E", "F"}
    confirmed = replace(known, drawn=tuple(replace(d, set="G") if d.set == "C" else d for d in known.drawn))
    assert {p[0] for p, _ in BY_NAME["T1"].measure(confirmed)["oracle"]} == {"B", "C"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a nosnjaoutfit folk costume in snow", "a traditional Serbian folk costume in snow"),
        ("a woman wearing Nosnjaoutfit", "a woman wearing traditional Serbian folk costume"),
        ("nosnjaoutfit traditional Serbian folk costume", "traditional Serbian folk costume"),
        ("a traditional Serbian folk costume", "a traditional Serbian folk costume"),
        ("a folk costume", "a traditional Serbian folk costume"),
        ("nosnjaoutfits and prenosnjaoutfit", "nosnjaoutfits and prenosnjaoutfit"),
    ],
)
def test_describing_words_take_the_place_of_trigger_and_noun(text: str, expected: str) -> None:
    assert describing(text, PROJECT) == expected


def test_describing_takes_every_character_literally() -> None:
    odd = Project(base="tiny", trigger="a.b", noun="c+", describes=r"x\1")
    assert describing("an a.b c+, axb", odd) == r"an x\1, axb"


def test_lookalikes_take_the_concepts_place() -> None:
    expected = ("a Bulgarian folk costume, snow", "a modern dress, snow")
    assert contrasts("a nosnjaoutfit folk costume, snow", PROJECT) == expected
    assert contrasts("a cat", PROJECT) == () == contrasts("a nosnjaoutfit", replace_lookalikes(()))


def replace_lookalikes(words: tuple[str, ...]) -> Project:
    return PROJECT.model_copy(update={"lookalikes": words})


def with_view(m: Material, **change: object) -> Material:
    view: View = replace(m.clip, **change)
    return replace(m, clip=view)


def test_what_is_missing_leaves_a_metric_unmeasured_not_zero(known: Material) -> None:
    def silent(m: Material, *names: str) -> bool:
        return all(BY_NAME[name].measure(m) == {} for name in names)

    scaled = (*LIKENESS[:1], *LIKENESS[2:], "leak", "trigger_effect", "specificity", "overfit")
    assert silent(with_view(known, reference=known.clip.reference[:1]), *scaled)
    assert silent(replace(known, base=None), *scaled, "foreground", "drift", "colour_drift", "diversity")
    assert silent(with_view(known, training={}), "nearest_training", "copying", "overfit")
    assert silent(with_view(known, foreground=None), "foreground")
    assert silent(with_view(known, gallery=None), "gallery", "gallery_first")
    unlike = replace(known, project=replace_lookalikes(()))
    assert silent(unlike, "T3", "told_apart")
    blank = replace(known, pixels=None)
    assert silent(blank, "colour_drift", "saturation_drift", "copies", "flat", "blur", "lettering")
    classes = replace(known, drawn=tuple(replace(d, role="class") for d in known.drawn))
    about = {metric.name for metric in METRICS if metric.family != "artefacts"}
    assert silent(classes, *about)
    once = replace(known, drawn=tuple(replace(d, prompt=f"{d.prompt}{d.seed}") for d in known.drawn))
    assert silent(once, "drift", "drift_near", "diversity", "colour_drift")


def test_no_scale_where_real_pictures_are_no_nearer_than_the_bases(known: Material) -> None:
    scattered = np.stack([unit(np.eye(WIDTH)[i], 0.1 * CLASS) for i in range(30, 35)])
    assert likeness_span(with_view(known, reference=scattered)) is None


def test_every_metric_has_a_rule_and_says_what_it_is(known: Material, values: dict[str, Values]) -> None:
    assert [metric.name for metric in METRICS] == list(dict.fromkeys(metric.name for metric in METRICS))
    assert set(RULES) == set(BY_NAME)
    drawn = {(d.arm, d.prompt, d.seed) for d in known.drawn}
    for metric in METRICS:
        assert metric.definition.endswith((".", "?")) and metric.needs.startswith("needs ")
        told = values.get(metric.name, {})
        assert told or metric.name in SLOW | NEEDS_ANOTHER_ENCODER
        assert all((arm, *key) in drawn and np.isfinite(v) for arm, of in told.items() for key, v in of.items())


def test_what_decides_was_declared_beforehand() -> None:
    everything = declared(RULES)
    assert {name for name, rule in everything.items() if rule.primary} == {"similarity", "T2"}
    assert everything == RULES and not any(rule.calibrated for rule in RULES.values())
    assert not any(rule.gate and rule.gate.calibrated for rule in everything.values())
    without = declared([name for name in RULES if name != "similarity"])
    assert {name for name, rule in without.items() if rule.primary} == {INSTEAD["similarity"], "T2"}
    assert "similarity" not in without


def test_limits_are_those_of_who_looks() -> None:
    of = LIMITS[TINY]
    assert load(clip_for("tiny")).sha256 == TINY, "the table is about the weights that are in the package"
    assert of.keys() <= RULES.keys() and set(BY_JUDGE) <= RULES.keys()
    tiny = declared(RULES, clip=TINY, judge=TINY)
    assert tiny["T2"].margin == of["T2"] and tiny["T2"].calibrated and tiny["T2"].primary
    assert tiny["drift"].gate == Gate(of["drift"], "below", calibrated=True)
    assert all(tiny[name] == rule for name, rule in RULES.items() if name not in of)
    apart = declared(RULES, clip=TINY, judge="a DINOv2")
    assert apart["drift"] == RULES["drift"] and apart["T2"] == tiny["T2"]


@pytest.fixture(scope="module")
def small(world: World) -> Material:
    return world.material({"oracle": ("oracle", 1.0), "leaky": ("leaky", 0.7)})


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_pictures_says_nothing(small: Material, dice: object) -> None:
    order = np.arange(len(small.drawn))
    getattr(dice, "shuffle")(order)  # noqa: B009 - hypothesis hands it over untyped
    assert close(measured(moved(small, order)), measured(small))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_turn_of_the_encoders_space_says_nothing(small: Material, seed: int) -> None:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(0, 1, (WIDTH, WIDTH)))[0]
    view = small.clip
    assert view.gallery is not None
    turned = with_view(small, images=view.images @ turn, reference=view.reference @ turn, gallery=view.gallery @ turn,
                       training={arm: seen @ turn for arm, seen in view.training.items()})  # fmt: skip
    turned = replace(turned, texts={text: vector @ turn for text, vector in small.texts.items()})
    assert close(measured(turned), measured(small), 1e-5)


@given(st.sampled_from(FAULTS), st.floats(0, 1))
@settings(max_examples=5, deadline=None)
def test_what_one_arm_scores_does_not_depend_on_the_others(world: World, small: Material, f: str, dose: float) -> None:
    beside = measured(world.material({"oracle": ("oracle", 1.0), "other": (f, dose)}))
    for name, of in measured(small).items():
        assert beside[name].get("oracle") == of.get("oracle")


def close(one: Mapping[str, Values], other: Mapping[str, Values], within: float = 1e-9) -> bool:
    assert {n: {a: set(of) for a, of in v.items()} for n, v in one.items()} == {
        n: {a: set(of) for a, of in v.items()} for n, v in other.items()
    }
    return all(
        abs(one[n][a][key] - value) <= within + 1e-6 for n, of in other.items() for a, c in of.items()
        for key, value in c.items()
    )  # fmt: skip


def test_everything_is_measured_at_once(world: World) -> None:
    m = world.material({"oracle": ("oracle", 1.0)}, sets="AEF")
    assert measure(m) == {metric.name: metric.measure(m) for metric in METRICS}


def test_a_picture_without_a_set_is_as_old_samples_are() -> None:
    assert Drawn("a", "p", "g", "trigger", "t", "c", 0, "f.png").set == ""
