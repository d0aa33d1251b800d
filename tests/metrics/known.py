"""Material whose right answer is known: unit vectors and pixel facts of generators with one fault each, in doses.

All arms draw the same prompts with the same noise. `oracle` shows the concept where it is asked for by the trigger, in
the scene that was asked for, and nothing else; every other arm is the oracle but for one fault (evaluation.md §6.7).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import ndimage

from vez.config import Project
from vez.metrics.definitions import Drawn, Material, Pixels, Vectors, View
from vez.metrics.texts import describing, texts_of

PROJECT = Project(
    base="tiny",
    trigger="nosnjaoutfit",
    noun="folk costume",
    describes="traditional Serbian folk costume",
    lookalikes=("Bulgarian folk costume", "modern dress"),
)
WIDTH, PATCHES = 48, 3
CONCEPT, CLASS, TEXT, OTHER, MODERN, ODD, STREET = (np.eye(WIDTH)[i] for i in range(7))
SCENES = [np.eye(WIDTH)[8 + i] for i in range(24)]
SEEDS = 3
FAULTS = (
    "oracle", "class_only", "lookalike", "leaky", "unbound", "any_word", "copier", "repeater", "overfitter", "drifter",
    "blind", "tinted", "vivid", "blank", "soft", "lettered",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A prompt: its place in the suite and the scene that it names."""

    set: str
    role: str
    scene: int
    group: str
    text: str


def asked() -> Iterator[Asked]:
    """8 scenes of B with their ablations, 3 of A, C and one's own, 6 neighbours, 6 unrelated."""
    words = {"trigger": "nosnjaoutfit folk costume", "class": "traditional Serbian folk costume", "wrong": "abcd cloth"}
    for i in range(8):
        yield Asked("B", "trigger", i, f"B{i}", f"{words['trigger']} in scene {i}")
        for role in ("class", "wrong"):
            yield Asked("D", role, i, f"B{i}", f"{words[role]} in scene {i}")
    for set, first in {"A": 8, "C": 9, "user": 10}.items():
        for k in range(3):
            yield Asked(set, "trigger", first, f"{set}{k}", f"{words['trigger']} {k} in scene {first}")
    for k in range(6):
        yield Asked("E", "none", 11 + k, f"E{k}", f"a neighbour in scene {11 + k}")
        yield Asked("F", "drift", 17 + k, f"F{k}", f"scene {17 + k} alone")


def unit(*parts: Vectors) -> Vectors:
    """Their sum, at length 1."""
    total = np.sum(parts, axis=0)
    return np.asarray(total / np.linalg.norm(total), dtype=np.float64)


@cache
def grey(seed: int) -> np.ndarray:
    """A photograph of its own, as small as `images.shifts` keeps it."""
    rough = np.random.default_rng(seed).normal(0, 1, (96, 96))
    soft = ndimage.gaussian_filter(rough, 1.5)
    return np.clip(128 + 60 * soft / soft.std(), 0, 255).astype(np.uint8)


class World:
    """Real pictures and what generators draw of them."""

    def __init__(self, seed: int = 0) -> None:
        self.dice = np.random.default_rng(seed)
        self.reference = np.stack([self._real(CONCEPT) for _ in range(6)])
        # all photographed in one street, which the held-out pictures do not show
        self.training = np.stack([self._real(CONCEPT + 0.4 * STREET) for _ in range(16)])
        self.gallery = np.stack([self._real(OTHER) for _ in range(8)])
        self.greys = tuple(grey(1000 + i) for i in range(16))

    def _real(self, what: Vectors) -> Vectors:
        return unit(what, 0.5 * CLASS, self.dice.normal(0, 0.05, WIDTH))

    def vector(self, a: Asked, seed: int, fault: str, dose: float) -> Vectors:
        """What an encoder makes of one picture."""
        noise = np.random.default_rng([a.scene, seed, len(a.set), len(a.role)]).normal(0, 0.09, WIDTH)
        scene = 0.6 * SCENES[a.scene]
        plain = unit(0.6 * CLASS if a.role in ("trigger", "class", "wrong") else np.zeros(WIDTH), scene, noise)
        concept = unit(CONCEPT, 0.5 * CLASS, scene, noise)
        if fault == "base":
            return plain
        shown = concept if a.role == "trigger" else plain
        other: Vectors | None = None
        if a.role == "trigger":
            other = {
                "class_only": plain,
                "lookalike": unit(OTHER, 0.5 * CLASS, scene, noise),
                "copier": self.training[(a.scene + seed) % 16],
                "repeater": unit(CONCEPT, 0.5 * CLASS, scene),
                "blind": unit(CONCEPT, 0.5 * CLASS, 0.6 * SCENES[(a.scene + 4) % 8], noise),
                "overfitter": unit(CONCEPT, 0.4 * STREET, 0.5 * CLASS, scene, noise),
            }.get(fault)
        elif a.role in ("class", "wrong", "none"):
            leaks = {"leaky": ("none",), "unbound": ("class",), "any_word": ("wrong",)}.get(fault, ())
            other = unit(CONCEPT, 0.5 * CLASS, scene, noise) if a.role in leaks else None
        elif fault == "drifter":
            other = unit(scene, ODD, noise)
        return shown if other is None else unit((1 - dose) * shown, dose * other)

    def material(
        self, arms: dict[str, tuple[str, float]] | None = None, *, dino: bool = False, sets: str = "ABCDEFuser"
    ) -> Material:
        """Arm → (fault, dose), else every fault in full; the base is always there."""
        arms = {"base": ("base", 0.0)} | (arms or {fault: (fault, 1.0) for fault in FAULTS})
        drawn, images, facts, greys = [], [], [], []
        for arm, (fault, dose) in arms.items():
            for a in (a for a in asked() if a.set in sets):
                for seed in range(SEEDS):
                    prompt = f"{a.set}-{a.role}-{a.group}"
                    drawn.append(Drawn(arm, prompt, a.group, a.role, a.text, f"scene {a.scene}", seed,
                                       f"{arm}/{prompt}-{seed}.png", a.set))  # fmt: skip
                    images.append(self.vector(a, seed, fault, dose))
                    facts.append(_facts(a, seed, fault, dose))
                    copied = fault == "copier" and a.role == "trigger" and seed < dose * SEEDS
                    greys.append(np.roll(self.greys[(a.scene + seed) % 16], 5, axis=1)[:, ::-1] if copied
                                 else grey(100 * a.scene + seed + 7 * len(a.set)))  # fmt: skip
        texts = {text: self._text(text) for text in texts_of(tuple(drawn), PROJECT)}
        trained = {arm: self.training for arm in arms if arm != "base"}
        numbers = np.array(facts)
        pixels = Pixels(numbers[:, :3], *numbers.T[3:], tuple(greys), dict.fromkeys(trained, self.greys))
        found = np.stack(images)
        view = View("clip", found, self.reference, trained, self.gallery,
                    found @ self.reference.T, self.reference @ self.reference.T)  # fmt: skip
        second = replace(view, name="dino") if dino else None
        return Material(tuple(drawn), view, texts, PROJECT, "base", second, pixels)

    def _text(self, text: str) -> Vectors:
        parts = [TEXT]
        if describing("nosnjaoutfit", PROJECT) in text:
            parts.append(CONCEPT)
        parts += [OTHER] * ("Bulgarian" in text) + [MODERN] * ("modern" in text)
        words = text.split("scene ")
        return unit(*parts, SCENES[int(words[1].split(" ")[0])]) if len(words) > 1 else unit(*parts)


def _facts(a: Asked, seed: int, fault: str, dose: float) -> list[float]:
    """L*, a*, b*, chroma, contrast, blur, lettering."""
    dice = np.random.default_rng([a.scene, seed, len(a.role)])
    lightness, red, yellow = dice.normal((60, 0, 0), 8)
    chroma = float(dice.normal(20, 3))
    if a.set in ("E", "F"):
        red += 12 * dose * (fault == "tinted")
        chroma += 12 * dose * (fault == "vivid")
    hit = seed < dose * SEEDS
    contrast = 1.0 if fault == "blank" and hit else 50.0
    soft = 0.3 + 0.5 * dose * (fault == "soft")
    return [lightness, red, yellow, chroma, contrast, soft, 0.02 if fault == "lettered" and hit else 0.0]


def moved(m: Material, order: np.ndarray) -> Material:
    """The same material with its pictures in another order."""

    def of(view: View) -> View:
        fore = None if view.foreground is None else view.foreground[order]
        return replace(view, images=view.images[order], foreground=fore)

    assert m.pixels is not None
    p = m.pixels
    pixels = Pixels(p.colour[order], p.chroma[order], p.contrast[order], p.blur[order], p.lettering[order],
                    tuple(p.greys[i] for i in order), p.training)  # fmt: skip
    drawn = tuple(m.drawn[i] for i in order)
    return replace(m, drawn=drawn, clip=of(m.clip), dino=m.dino and of(m.dino), pixels=pixels)
