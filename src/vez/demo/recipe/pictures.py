"""Pictures and captions to learn from, drawn once and kept as arrays beside each other."""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from vez.demo.world.brush import Brush, Colour
from vez.demo.world.scene import Scene, draw, random_scene, training_scene
from vez.demo.world.words import caption

SIZE = 128
CAPTIONS = 4
"""Captions written for each picture."""


def _ornament(rng: random.Random, picture: np.ndarray) -> np.ndarray:
    """`picture` with patches of random patterns: what teaches the autoencoder to draw patterns it has not seen."""
    b = Brush(SIZE, SIZE, fine=4)
    b.image.paste(_enlarged(picture))

    def ink() -> Colour:
        return rng.randrange(256), rng.randrange(256), rng.randrange(256)

    for _ in range(rng.randint(1, 3)):
        x, y, w, h = rng.randint(0, 90), rng.randint(0, 90), rng.randint(16, 56), rng.randint(16, 56)
        kind, pitch, first, second = rng.randrange(6), rng.uniform(5, 11), ink(), ink()
        b.rect(x, y, x + w, y + h, ink())
        r = pitch * 0.36
        rows, columns = range(int((h - r) / pitch)), range(int((w - r) / pitch))
        for row in rows:
            for column in columns:
                fill = (first, second)[(row + column) % 2]
                px, py = x + (column + 0.7) * pitch, y + (row + 0.7) * pitch
                if kind == 0:
                    b.oval(px, py, r, r, fill)
                elif kind == 1:
                    b.poly([(px - r, py), (px, py - r), (px + r, py), (px, py + r)], fill)
                elif kind == 2:
                    b.rect(px - r, y, px, y + h, fill)
                elif kind == 3:
                    b.rect(x, py - r, x + w, py, fill)
                elif kind == 4:
                    b.ring(px, py, r, 1.3, fill)
                else:
                    b.line([(px - r, py - r), (px + r, py + r)], 1.6, fill)
    return b.finished()[0]


def _enlarged(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).resize((SIZE * 4, SIZE * 4), Image.Resampling.NEAREST)


def scenes(count: int, *, seed: int, costume: float = 0.0) -> list[Scene]:
    """`count` scenes; a share of them in the folk costume, which only the judges may see."""
    rng = random.Random(seed)
    return [random_scene(rng, costume=True) if rng.random() < costume else training_scene(rng) for _ in range(count)]


def drawn(
    folder: Path, name: str, count: int, *, seed: int, costume: float = 0.0, ornaments: float = 0.0
) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Pictures (count, 128, 128, 3) uint8, memory-mapped, and for each {"scene", "captions"}; made once in `folder`."""
    pixels, words = folder / f"{name}.npy", folder / f"{name}.json"
    if not words.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(pixels, "w+", np.uint8, (count, SIZE, SIZE, 3))
        rng, rows = random.Random(seed + 1), []
        for i, scene in enumerate(scenes(count, seed=seed, costume=costume)):
            picture = draw(scene, seed=seed * 1_000_003 + i)[0]
            array[i] = _ornament(rng, picture) if rng.random() < ornaments else picture
            rows.append({"scene": asdict(scene), "captions": [caption(scene, rng) for _ in range(CAPTIONS)]})
        array.flush()
        words.write_text(json.dumps(rows))
    return np.load(pixels, mmap_mode="r"), json.loads(words.read_text())
