"""Each metric on vectors whose right answer is known: what the fakes of evaluation.md §6.7 must show."""

from dataclasses import replace

import numpy as np
import pytest

from vez.config import Project
from vez.metrics.definitions import METRICS, Drawn, Material, Vectors, View, describing
from vez.metrics.likeness import likeness_span

PROJECT = Project(
    base="tiny", trigger="nosnjaoutfit", noun="folk costume", describes="traditional Serbian folk costume"
)
BY_NAME = {metric.name: metric for metric in METRICS}
WIDTH = 24
CONCEPT, CLASS, TEXT, CONTEXT = (np.eye(WIDTH)[i] for i in range(4))
SCENES = [np.eye(WIDTH)[4 + i] for i in range(6)]


def unit(*parts: Vectors) -> Vectors:
    total = np.sum(parts, axis=0)
    return np.asarray(total / np.linalg.norm(total), dtype=np.float64)


def look(dice: np.random.Generator, *parts: Vectors, noise: float = 0.05) -> Vectors:
    return unit(*parts, dice.normal(0, noise, WIDTH))


def material(arms: tuple[str, ...] = ("base", "oracle", "leaky", "copier", "drifter")) -> Material:
    """Six scenes × roles × three seeds; the arms are generators with known faults."""
    dice = np.random.default_rng(0)
    reference = np.stack([look(dice, CONCEPT, noise=0.12) for _ in range(4)])
    training = np.stack([look(dice, CONCEPT, noise=0.12) for _ in range(8)])
    drawn, images = [], []
    for arm in arms:
        for g, scene in enumerate(SCENES):
            for role in ("trigger", "class", "none", "drift"):
                for seed in range(3):
                    asked = {"trigger": [CLASS, scene], "class": [CLASS, scene], "none": [scene], "drift": [scene]}[
                        role
                    ]
                    same = np.random.default_rng(100 * g + seed).normal(0, 0.1, WIDTH)  # the noise all arms share
                    vector = look(dice, *asked, same)
                    if arm == "oracle" and role == "trigger":
                        vector = look(dice, CONCEPT, 0.3 * scene, same)
                    if arm == "leaky" and role != "drift":
                        vector = look(dice, CONCEPT, 0.3 * scene, same)
                    if arm == "copier" and role == "trigger":
                        vector = look(dice, training[(g + seed) % 8], noise=0.005)
                    if arm == "drifter" and role == "drift":
                        vector = look(dice, scene, np.eye(WIDTH)[20], same)
                    drawn.append(Drawn(arm, f"{role}{g}", f"g{g}", role, f"{role} {g}", f"scene {g}", seed, ""))
                    images.append(vector)
    texts = {f"{role} {g}": unit(TEXT, SCENES[g]) for role in ("trigger", "class", "none", "drift") for g in range(6)}
    texts |= {f"scene {g}": SCENES[g] for g in range(6)}
    trained = {arm: training for arm in arms if arm != "base"}
    return Material(tuple(drawn), View("clip", np.stack(images), reference, trained), texts, PROJECT, "base")


@pytest.fixture(scope="module")
def known() -> Material:
    return material()


def mean(m: Material, metric: str, arm: str) -> float:
    return float(np.mean(list(BY_NAME[metric].measure(m)[arm].values())))


def test_similarity_is_0_for_the_base_and_near_1_for_the_oracle(known: Material) -> None:
    assert mean(known, "similarity", "base") == pytest.approx(0, abs=1e-5)
    assert 0.7 < mean(known, "similarity", "oracle") < 1
    assert mean(known, "similarity", "drifter") == pytest.approx(0, abs=0.05)
    of_base = BY_NAME["similarity"].measure(known)["base"]
    assert set(of_base) == {(f"trigger{g}", seed) for g in range(6) for seed in range(3)}


def test_trigger_effect_and_leak_tell_learned_from_leaked(known: Material) -> None:
    assert mean(known, "trigger_effect", "oracle") > 0.7
    assert abs(mean(known, "trigger_effect", "leaky")) < 0.1
    assert mean(known, "leak", "leaky") > 0.3 > 0.1 > abs(mean(known, "leak", "oracle"))


def test_copying_finds_the_copier_alone(known: Material) -> None:
    assert mean(known, "nearest_training", "copier") > 0.99 > mean(known, "nearest_training", "oracle")
    assert mean(known, "copying", "copier") == 1
    assert mean(known, "copying", "oracle") <= 0.1  # eight pictures give a rough limit
    assert "base" not in BY_NAME["copying"].measure(known)


def test_drift_finds_the_drifter_alone(known: Material) -> None:
    assert mean(known, "drift", "drifter") > 3 * mean(known, "drift", "oracle") > 0
    assert "base" not in BY_NAME["drift"].measure(known)


def test_context_score_falls_for_what_paints_over_the_scene(known: Material) -> None:
    assert mean(known, "T2", "base") > mean(known, "T2", "oracle") > mean(known, "T2", "copier")


def test_clipscore_is_the_published_formula(known: Material) -> None:
    rows = BY_NAME["T0"].measure(known)["oracle"]
    index = next(i for i, d in enumerate(known.drawn) if (d.arm, d.prompt, d.seed) == ("oracle", "trigger2", 1))
    cosine = float(known.clip.images[index] @ known.texts["trigger 2"])
    assert rows["trigger2", 1] == pytest.approx(2.5 * max(cosine, 0), abs=1e-6)
    opposite = {name: -vector for name, vector in known.texts.items()}
    turned = Material(**{**vars(known), "texts": opposite})
    assert mean(turned, "T2", "base") == 0


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


def without(m: Material, **change: object) -> Material:
    """The material with other vectors, or other parts."""
    of_view = {key: value for key, value in change.items() if key in View.__annotations__}
    rest = {key: value for key, value in change.items() if key not in of_view}
    return replace(m, clip=replace(m.clip, **of_view), **rest)


def test_what_is_missing_leaves_a_metric_unmeasured_not_zero(known: Material) -> None:
    scaled = ("similarity", "leak", "trigger_effect")
    for lacking in (without(known, reference=known.clip.reference[:1]), without(known, base=None)):
        assert all(BY_NAME[name].measure(lacking) == {} for name in scaled)
    keep = [i for i, d in enumerate(known.drawn) if d.role == "class"]
    classes = without(known, drawn=tuple(known.drawn[i] for i in keep), images=known.clip.images[keep])
    assert all(metric.measure(classes) == {} for metric in METRICS)
    assert BY_NAME["nearest_training"].measure(without(known, training={})) == {}
    first = [i for i, d in enumerate(known.drawn) if d.seed == 0]
    once = without(known, drawn=tuple(known.drawn[i] for i in first), images=known.clip.images[first])
    assert BY_NAME["drift"].measure(once) == {}


def test_no_scale_where_real_pictures_are_no_nearer_than_the_bases(known: Material) -> None:
    dice = np.random.default_rng(1)
    scattered = np.stack([unit(dice.normal(0, 1, WIDTH)) for _ in range(5)])
    assert likeness_span(without(known, reference=scattered)) is None


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_says_what_it_is_and_keeps_the_shape(metric: object, known: Material) -> None:
    assert metric in METRICS
    record = BY_NAME[getattr(metric, "name")]  # noqa: B009 - pytest hands it over untyped
    assert record.definition.endswith((".", "?")) and record.needs.startswith("needs ")
    drawn = {(d.arm, d.prompt, d.seed) for d in known.drawn}
    values = record.measure(known)
    assert all((arm, *key) in drawn and np.isfinite(v) for arm, of in values.items() for key, v in of.items())
