"""The metrics: each a record of a name, a sentence that defines it, a direction, what it needs, and a function.

The function takes `Material`, the CLIP vectors of everything there is, and gives one value per picture. Pure.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vez.config import Project
from vez.metrics.rules import Gate, Rule
from vez.metrics.summary import Values

PREFIX: Final = "A photo depicts "
"""What CLIPscore puts before every text (Hessel et al. 2021, arXiv 2104.08718; jmhessel/clipscore)."""

WEIGHT: Final = 2.5
"""CLIPscore's w, meant to stretch the cosines of ViT-B/32 to about [0, 1]."""

SMALLEST_SPAN: Final = 0.01
"""Cosine between the base's pictures and real ones below which the likeness scale would divide noise by noise."""

MARGIN: Final = 0.015 * WEIGHT
"""A change of CLIPscore that does no harm: 0.015 of cosine. With 12 prompts × 4 seeds an equal LoRA is shown to lose
less 93 times in 100; with a margin of 0.01 it would be 2 in 3 (docs/truth.md)."""

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """One sampled picture; ``text`` and ``context`` have their placeholders filled, ``set`` is the suite's letter."""

    arm: str
    prompt: str
    group: str
    role: str
    text: str
    context: str
    seed: int
    file: str
    set: str = ""


@dataclass(frozen=True)
class Material:
    """All that metrics look at, as unit vectors of one CLIP.

    ``images`` (N, D) belong to ``drawn``; ``texts`` maps a text without the prefix to its vector (D,);
    ``reference`` (R, D) are the held-out pictures that no arm was trained on; ``training`` maps an arm to the pictures
    it was trained on (T, D).
    """

    drawn: tuple[Drawn, ...]
    images: Vectors
    texts: Mapping[str, Vectors]
    reference: Vectors
    training: Mapping[str, Vectors]
    project: Project
    base: str | None


@dataclass(frozen=True)
class Metric:
    """One metric. ``needs`` says, where nothing could be measured, what was missing; for the rest see `rules.Rule`."""

    name: str
    definition: str
    higher_is_better: bool
    needs: str
    measure: Callable[[Material], Values]
    primary: bool = False
    margin: float | None = None
    gate: Gate | None = None
    guard: bool = False

    @property
    def rule(self) -> Rule:
        """How its differences are judged."""
        return Rule(self.higher_is_better, self.primary, self.margin, self.gate, self.guard)


def describing(text: str, project: Project) -> str:
    """T1: a prompt with the trigger, and the noun beside it, replaced by the words that describe the concept."""
    t, n, d = (re.escape(word) for word in (project.trigger, project.noun, project.describes))
    # The longest first, in one pass: the description usually holds the noun, and must not be described again.
    pattern = rf"(?<!\w)(?:{t}\s+(?:{d}|{n})|{d}|{t}|{n})(?!\w)"
    return re.sub(pattern, lambda _: project.describes, text, flags=re.IGNORECASE)


def _text_score(words: Callable[[Drawn, Project], str], role: str) -> Callable[[Material], Values]:
    """CLIPscore of pictures of one role under the words that ``words`` makes of a prompt; none where it makes none."""

    def measure(m: Material) -> Values:
        chosen = [(i, said) for i, d in enumerate(m.drawn) if d.role == role and (said := words(d, m.project))]
        cosines = [float(m.images[i] @ m.texts[said]) for i, said in chosen]
        return _table(m, [(i, WEIGHT * max(c, 0.0)) for (i, _), c in zip(chosen, cosines, strict=True)])

    return measure


def _similarity(*roles: str) -> Callable[[Material], Values]:
    """Likeness to held-out pictures, scaled: 0 the base's pictures of the same prompt, 1 another real picture."""

    def measure(m: Material) -> Values:
        span = likeness_span(m)
        if span is None:
            return {}
        likeness = (m.images @ m.reference.T).mean(axis=1)
        floor = _base_means(m, likeness)
        chosen = [i for i, d in enumerate(m.drawn) if d.role in roles and d.prompt in floor]
        return _table(m, [(i, (likeness[i] - floor[m.drawn[i].prompt]) / span) for i in chosen])

    return measure


def real_likeness(m: Material) -> float | None:
    """Mean cosine of two different held-out pictures; None with fewer than two."""
    n = len(m.reference)
    return float(((m.reference @ m.reference.T).sum() - n) / (n * (n - 1))) if n > 1 else None


def likeness_span(m: Material) -> float | None:
    """The cosine that one unit of the likeness scale stands for; None where there is no such scale."""
    real = real_likeness(m)
    if real is None:
        return None
    floor = _base_means(m, (m.images @ m.reference.T).mean(axis=1))
    triggered = {d.prompt for d in m.drawn if d.role == "trigger"} & floor.keys()
    if not triggered:
        return None
    span = real - float(np.mean([floor[prompt] for prompt in triggered]))
    return span if span >= SMALLEST_SPAN else None


def _base_means(m: Material, values: Vectors) -> dict[str, float]:
    """Prompt → mean of the base's pictures of it."""
    of_prompt: dict[str, list[float]] = {}
    for d, value in zip(m.drawn, values, strict=True):
        if d.arm == m.base:
            of_prompt.setdefault(d.prompt, []).append(float(value))
    return {prompt: float(np.mean(of)) for prompt, of in of_prompt.items()}


def _trigger_effect(m: Material) -> Values:
    """Scaled likeness with the trigger minus with the describing words, same scene, same noise."""
    span = likeness_span(m)
    if span is None:
        return {}
    likeness = (m.images @ m.reference.T).mean(axis=1)
    described: dict[tuple[str, str, int], list[float]] = {}
    for d, value in zip(m.drawn, likeness, strict=True):
        if d.role == "class" and d.group:
            described.setdefault((d.arm, d.group, d.seed), []).append(float(value))
    rows = []
    for i, d in enumerate(m.drawn):
        if d.role == "trigger" and (of := described.get((d.arm, d.group, d.seed))):
            rows.append((i, (likeness[i] - float(np.mean(of))) / span))
    return _table(m, rows)


def _nearest_training(m: Material) -> Values:
    chosen = [i for i, d in enumerate(m.drawn) if d.role == "trigger" and len(m.training.get(d.arm, ()))]
    return _table(m, [(i, float((m.training[m.drawn[i].arm] @ m.images[i]).max())) for i in chosen])


def alike(seen: Vectors) -> float | None:
    """How near pictures (T, D) lie to each other: 95th percentile of the cosine to the nearest other; None for one."""
    if len(seen) < 2:
        return None
    return float(np.quantile((seen @ seen.T - 2 * np.eye(len(seen))).max(axis=1), 0.95))


def _copying(m: Material) -> Values:
    """1 for a picture nearer to a training picture than nearly all of these are to each other, else 0."""
    limits = {arm: limit for arm, seen in m.training.items() if (limit := alike(seen)) is not None}
    nearest = {arm: of for arm, of in _nearest_training(m).items() if arm in limits}
    return {arm: {key: float(value > limits[arm]) for key, value in of.items()} for arm, of in nearest.items()}


def _drift(m: Material) -> Values:
    """Cosine distance to the base's picture of the same noise, in units of the base's distance between two noises."""
    own = {(d.prompt, d.seed): i for i, d in enumerate(m.drawn) if d.role == "drift" and d.arm == m.base}
    spreads = []
    for prompt in dict.fromkeys(prompt for prompt, _ in own):
        of = m.images[[i for (p, _), i in own.items() if p == prompt]]
        if len(of) > 1:
            spreads.append(1 - ((of @ of.T).sum() - len(of)) / (len(of) * (len(of) - 1)))
    spread = float(np.mean(spreads)) if spreads else 0.0
    if spread < 1e-6:
        return {}
    moved = [i for i, d in enumerate(m.drawn) if d.arm != m.base and (d.prompt, d.seed) in own and d.role == "drift"]
    pairs = [(i, own[m.drawn[i].prompt, m.drawn[i].seed]) for i in moved]
    return _table(m, [(i, (1 - float(m.images[i] @ m.images[j])) / spread) for i, j in pairs])


def _table(m: Material, rows: Sequence[tuple[int, float]]) -> Values:
    """(index of a picture, its value) → arm → (prompt, seed) → value."""
    table: dict[str, dict[tuple[str, int], float]] = {}
    for i, value in rows:
        d = m.drawn[i]
        # Rounded: the last bits of a vector depend on which pictures shared its batch.
        table.setdefault(d.arm, {})[d.prompt, d.seed] = round(float(value), 6)
    return table


_SCALE = (
    "0 is the mean of the base's own pictures of the same prompt, 1 is how alike two held-out pictures are; "
    "above 1 is suspicious"
)
_NEEDS_SCALE = (
    "needs at least two held-out pictures that no LoRA was trained on (held_out in vez.toml), the base as an arm, "
    "prompts with the trigger, and held-out pictures that are more like each other than like what the base draws"
)
METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        "T0",
        "CLIPscore of the prompt as it was drawn, trigger word included: 2.5 · max(cos(picture, “A photo depicts ” + "
        "prompt), 0), over prompts with the trigger. CLIP does not know the trigger word: for comparison with the "
        "reference study only.",
        True,
        "needs prompts of the role trigger",
        _text_score(lambda d, _: d.text, "trigger"),
    ),
    Metric(
        "T1",
        "CLIPscore of the prompt with the trigger word and its noun replaced by the describing words, over prompts "
        "with the trigger: does the picture show what was asked, in words that CLIP knows?",
        True,
        "needs prompts of the role trigger",
        _text_score(lambda d, project: describing(d.text, project), "trigger"),
        primary=True,
        margin=MARGIN,
    ),
    Metric(
        "T2",
        "CLIPscore of the prompt's context alone, the concept left out, over prompts with the trigger: is the rest of "
        "the prompt still followed?",
        True,
        "needs prompts of the role trigger that have a context",
        _text_score(lambda d, _: d.context, "trigger"),
        primary=True,
        margin=MARGIN,
        guard=True,
    ),
    Metric(
        "similarity",
        f"Mean CLIP cosine to the held-out pictures, scaled: {_SCALE}. Over prompts with the trigger.",
        True,
        _NEEDS_SCALE,
        _similarity("trigger"),
        primary=True,
        gate=Gate(0.15, "above"),
    ),
    Metric(
        "trigger_effect",
        "Likeness with the trigger word minus likeness with the describing words, same scene, same noise, same LoRA, "
        "on the scale of similarity: what the trigger word itself does. Near 0: nothing that plain words do not.",
        True,
        f"{_NEEDS_SCALE}; and in a group both a prompt of the role trigger and one of the role class",
        _trigger_effect,
        gate=Gate(0.0, "above"),
    ),
    Metric(
        "leak",
        "Likeness to the held-out pictures on the scale of similarity, over prompts that do not ask for the concept "
        "(roles none and drift): 0 is none more than the base, above 0 the concept comes unasked.",
        False,
        f"{_NEEDS_SCALE}; and prompts of the roles none or drift",
        _similarity("none", "drift"),
        gate=Gate(0.10, "below"),
    ),
    Metric(
        "unrelated",
        "CLIPscore of unrelated prompts (role drift): is what the LoRA was not taught still drawn as asked?",
        True,
        "needs prompts of the role drift",
        _text_score(lambda d, _: d.text, "drift"),
        margin=MARGIN,
        guard=True,
    ),
    Metric(
        "drift",
        "How far pictures of unrelated prompts (role drift) move from the base's of the same noise: CLIP distance, in "
        "units of the base's own distance between two noises. 0: not at all, 1: as far as another noise would.",
        False,
        "needs prompts of the role drift, the base as an arm, and two seeds or more",
        _drift,
        gate=Gate(0.35, "below"),
    ),
    Metric(
        "nearest_training",
        "CLIP cosine to the nearest picture of the LoRA's own training set, over prompts with the trigger: near 1 is a "
        "sign of copying. Look at the pair before believing it.",
        False,
        "needs prompts of the role trigger, and the datasets that the LoRAs were trained on",
        _nearest_training,
    ),
    Metric(
        "copying",
        "Share of pictures, over prompts with the trigger, whose nearest training picture is nearer than 95 % of the "
        "training pictures are to their own nearest (CLIP cosine): about 0 for what has learned the concept, towards 1 "
        "for what has learned its pictures.",
        False,
        "needs prompts of the role trigger, and the datasets that the LoRAs were trained on",
        _copying,
    ),
)
"""Every metric, in the order of the tables."""
