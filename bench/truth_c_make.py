"""What the studies of the truth test, level C, are made of: drawn pictures with captions, and their configs."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

import truth_world
from vez.config import Config, Prompt, Study
from vez.demo.make_project import hand_caption
from vez.demo.world.scene import Scene, draw, random_scene, training_scene
from vez.demo.world.words import caption
from vez.images.pixels import pixels_sha256

TRIGGER, NOUN, DESCRIBES = "nosnjaoutfit", "folk costume", "traditional Serbian folk costume"
HELD = {"full": 3, "upper": 2, "seated": 1}
VIEWS = {"full": 10, "upper": 5, "seated": 4, "lower": 1, "mannequin": 2, "doll": 2}
SIDE, BATCH, TRAINED = 128, 8, 24
SHARES: Mapping[tuple[str, str], tuple[int, int]] = {
    ("A", "trigger"): (4, 1),
    ("B", "trigger"): (12, 4),
    ("D", "class"): (12, 1),
    ("D", "wrong"): (8, 1),
    ("E", "none"): (12, 2),
    ("F", "drift"): (8, 2),
}
"""Prompts and noises of each set: 112 pictures for each arm; B and E as in the standard profile."""
SETTING: Mapping[str, object] = {"batch": BATCH, "rank": 16, "lr_unet": 1.5e-3, "lr_text": 2e-4, "min_snr": 5.0}

Labelled = list[tuple[Scene, str]]
"""Scenes and their captions."""


def config_of(root: Path, *, datasets: Sequence[str], studies: Mapping[str, Study], trigger: str = TRIGGER) -> Config:
    """A project of these datasets, which lie in its folder, and one of class pictures."""
    tables = {name: {"images": f"images/{name}", "captions": f"captions/{name}", "held_out": sum(HELD.values())}
              for name in datasets}  # fmt: skip
    tables |= {"class": {"images": "images/class", "captions": "captions/class", "role": "class"}}
    about = {"base": "tiny", "trigger": trigger, "noun": NOUN, "describes": DESCRIBES, "kind": "garment"}
    every = {"resolution": SIDE, "drop": ("unreadable",)}
    found = Config.model_validate(
        {"project": about, "dataset": {name: table | every for name, table in tables.items()}, "study": studies}
    )
    return found.model_copy(update={"root": root})


def study_of(
    variants: Mapping[str, Mapping[str, object]],
    *,
    steps: int,
    first_seed: int = 0,
    save_every: int | None = None,
    checkpoints: Sequence[int] | None = None,
    asked: Sequence[Prompt] | None = None,
) -> Study:
    """A study of these LoRAs, drawn with the prompts of `SHARES` where no others are given."""
    return Study.model_validate(
        {
            "steps": steps,
            "save_every": save_every,
            "validate_every": save_every or steps,
            "variant": {name: {**SETTING, **more} for name, more in variants.items()},
            "suite": "own",
            "prompts": prompts(SHARES) if asked is None else tuple(asked),
            "sampling": {
                "steps": 10,
                "cfg": 4.0,
                "seeds": 1,
                "first_seed": first_seed,
                "batch": 24,
                "checkpoints": checkpoints or "last",
            },
        }
    )


def prompts(shares: Mapping[tuple[str, str], tuple[int, int]]) -> tuple[Prompt, ...]:
    """The sets A, B, D, E and F of the suite for `tiny`, the first prompts of each at few noises."""
    return tuple(prompt.model_copy(update={"seeds": seeds}) for prompt, seeds in truth_world.chosen(shares))


def scenes(views: Mapping[str, int], rng: random.Random, *, place: str | None = None) -> list[Scene]:
    """So many of each view, at one sunny place or anywhere."""
    found = [random_scene(rng, view=view, costume=True) for view, n in views.items() for _ in range(n)]
    return [scene if place is None else replace(scene, place=place, weather="sunny") for scene in found]


def held_out(seed: int = 31) -> Labelled:
    """The six pictures that judge every LoRA: those that vez, which chooses by the hash of their pixels, holds out."""
    rng, found = random.Random(seed), Labelled()
    for view, n in HELD.items():
        while sum(scene.view == view for scene, _ in found) < n:
            (scene,) = scenes({view: 1}, rng)
            if _first(scene, 500 + len(found)) == "0":
                found.append((scene, hand_caption(scene, rng)))
    return found


def _first(scene: Scene, seed: int) -> str:
    return pixels_sha256(Image.fromarray(draw(scene, seed=seed, size=(SIDE, SIDE))[0]))[0]


def trained(scenes: Sequence[Scene], rng: random.Random) -> Labelled:
    return [(scene, hand_caption(scene, rng)) for scene in scenes]


def shuffled(share: float) -> Callable[[Labelled], Labelled]:
    """The first ``share`` of the pictures bear each other's captions."""

    def change(good: Labelled) -> Labelled:
        n = round(share * len(good))
        words = [text for _, text in good[:n]]
        turned = words[n // 2 :] + words[: n // 2]
        return [(scene, text) for (scene, _), text in zip(good[:n], turned, strict=True)] + good[n:]

    return change


def reworded(replacements: Mapping[str, str]) -> Callable[[Labelled], Labelled]:
    def change(good: Labelled) -> Labelled:
        for old, new in replacements.items():
            good = [(scene, text.replace(old, new)) for scene, text in good]
        return good

    return change


def write_all(root: Path, datasets: Mapping[str, Labelled], *, held: Labelled, rng: random.Random) -> None:
    """Datasets that hold out the same pictures, and as many class pictures as they train on; then the mark of all."""
    for name, labelled in datasets.items():
        write(root, name, labelled, held=held)
    others = [training_scene(rng) for _ in range(TRAINED)]
    write(root, "class", [(scene, caption(scene, rng)) for scene in others], held=[])
    (root / "images" / "whole").touch()


def write(root: Path, name: str, labelled: Labelled, *, held: Labelled) -> None:
    """PNGs and captions; ``few`` pictures are repeated until there are as many as elsewhere."""
    for kind in ("images", "captions"):
        (root / kind / name).mkdir(parents=True, exist_ok=True)
    copies = max(1, round(24 / len(labelled)))
    rows = [*(("held", i, 500 + i, *pair) for i, pair in enumerate(held)),
            *((f"copy{c}", i, i, *pair) for c in range(copies) for i, pair in enumerate(labelled))]  # fmt: skip
    for kind, i, seed, scene, words in rows:
        # Only what is held out begins so: that is how vez comes to choose it. A bare wall looks the same in all seeds.
        while kind != "held" and _first(scene, seed) == "0":
            seed += 1000
            scene = scene if seed < 10_000 else replace(scene, place="beach")
        Image.fromarray(draw(scene, seed=seed, size=(SIDE, SIDE))[0]).save(root / "images" / name / f"{kind}-{i}.png")
        (root / "captions" / name / f"{kind}-{i}.txt").write_text(words + "\n", encoding="utf-8")
