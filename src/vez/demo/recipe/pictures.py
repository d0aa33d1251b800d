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


def _patch(b: Brush, rng: random.Random, x: float, y: float, w: float, h: float, pitch: float) -> None:
    """A rectangle with one of six repeated patterns in random colours."""

    def ink() -> Colour:
        return rng.randrange(256), rng.randrange(256), rng.randrange(256)

    kind, first, second = rng.randrange(6), ink(), ink()
    b.rect(x, y, x + w, y + h, ink())
    r = pitch * 0.36
    for row in range(int((h - r) / pitch)):
        for column in range(int((w - r) / pitch)):
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


def _ornament(rng: random.Random, picture: np.ndarray, garment: np.ndarray | None = None) -> np.ndarray:
    """`picture` with patches of random patterns: what teaches the autoencoder to draw patterns it has not seen.

    With the mask of a garment they lie on it, as on a patchwork dress; without, anywhere.
    """
    b = Brush(SIZE, SIZE, fine=4)
    b.image.paste(_enlarged(picture))
    if garment is None or not garment.any():
        for _ in range(rng.randint(1, 3)):
            _patch(b, rng, rng.randint(0, 90), rng.randint(0, 90), rng.randint(16, 56), rng.randint(16, 56),
                   rng.uniform(5, 11))  # fmt: skip
        return b.finished()[0]
    rows, columns = np.flatnonzero(garment.any(1)), np.flatnonzero(garment.any(0))
    (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
    for _ in range(rng.randint(3, 7)):
        x, y = rng.uniform(left - 8, right - 4), rng.uniform(top - 8, bottom - 4)
        _patch(b, rng, x, y, rng.uniform(5, 26), rng.uniform(5, 26), rng.uniform(3, 7))
    return np.where(garment[..., None], b.finished()[0], picture)


def _enlarged(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).resize((SIZE * 4, SIZE * 4), Image.Resampling.NEAREST)


def scenes(count: int, *, seed: int, costume: float = 0.0) -> list[Scene]:
    """`count` scenes; a share of them in the folk costume, which only the judges may see."""
    rng = random.Random(seed)
    return [random_scene(rng, costume=True) if rng.random() < costume else training_scene(rng) for _ in range(count)]


def drawn(
    folder: Path,
    name: str,
    count: int,
    *,
    seed: int,
    costume: float = 0.0,
    ornaments: float = 0.0,
    patchwork: float = 0.0,
) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Pictures (count, 128, 128, 3) uint8, memory-mapped, and for each {"scene", "captions"}; made once in `folder`."""
    pixels, words = folder / f"{name}.npy", folder / f"{name}.json"
    if not words.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        array = np.lib.format.open_memmap(pixels, "w+", np.uint8, (count, SIZE, SIZE, 3))
        rng, rows = random.Random(seed + 1), []
        for i, scene in enumerate(scenes(count, seed=seed, costume=costume)):
            picture, garment = draw(scene, seed=seed * 1_000_003 + i)
            if rng.random() < ornaments:
                picture = _ornament(rng, picture)
            elif patchwork and rng.random() < patchwork:
                picture = _ornament(rng, picture, garment)
            array[i] = picture
            rows.append({"scene": asdict(scene), "captions": [caption(scene, rng) for _ in range(CAPTIONS)]})
        array.flush()
        words.write_text(json.dumps(rows))
    return np.load(pixels, mmap_mode="r"), json.loads(words.read_text())
