"""Pictures per second of each part of the build, beside Pillow's bare decode; then a whole build and its peak memory.

    python bench/build.py --pictures 10000

The pictures are drawn here: JPEG of about one megapixel, coloured noise of several scales (as hard to decode as a
photograph). Captions are by hand, so no captioner runs. Prints one line of JSON a part.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vez.config import Config, Project
from vez.config import Dataset as Recipe
from vez.dataset.look import cuts_of
from vez.images.checks import measure
from vez.images.crop import apply
from vez.images.decode import read_picture

STAGE_PICTURES = 24


def main() -> None:
    """Time the parts, then build in a process of its own."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pictures", type=int, default=1000)
    options.add_argument("--resolution", type=int, default=512)
    options.add_argument("--width", type=int, default=1152, help="of the pictures; their height is three quarters")
    options.add_argument("--child", type=Path)
    given = options.parse_args()
    if given.child:
        build(given.child, given.resolution)
        return
    size = (given.width, given.width * 3 // 4)
    parts(given.resolution, size)
    root = Path(tempfile.mkdtemp(prefix="vez-bench-"))
    try:
        draw(root, given.pictures, size)
        command = [sys.executable, __file__, "--child", str(root), "--resolution", str(given.resolution)]
        subprocess.run(command, check=True)
    finally:
        shutil.rmtree(root)


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Noise of several scales: a photograph's mixture of areas and edges, and none like another."""
    dice = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells, weight in ((6, 90), (24, 45), (96, 25), (288, 12)):
        coarse = dice.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += weight * (np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)) / 127.5 - 1)
    return Image.fromarray(np.clip(total + 127, 0, 255).astype(np.uint8))


def jpeg(seed: int, size: tuple[int, int]) -> bytes:
    """A picture as a file's bytes."""
    file = io.BytesIO()
    picture(seed, size).save(file, format="JPEG", quality=88)
    return file.getvalue()


def parts(resolution: int, size: tuple[int, int]) -> None:
    """Each part alone, on one thread: seconds are medians of three rounds over the same pictures."""
    files = [jpeg(seed, size) for seed in range(STAGE_PICTURES)]
    images = [read_picture(data).image for data in files]
    recipe = Recipe(images=Path("images"), resolution=resolution)
    cuts = [cuts_of(recipe, image, {}, file="x")[0] for image in images]
    crops = [apply(image, cut) for image, cut in zip(images, cuts, strict=True)]
    report("Pillow's bare decode", lambda: [Image.open(io.BytesIO(data)).load() for data in files])
    report("decode (read_picture)", lambda: [read_picture(data) for data in files])
    report("measure", lambda: [measure("x", image, resolution=resolution) for image in images])
    report("crop: where", lambda: [cuts_of(recipe, image, {}, file="x") for image in images])
    report("crop: cut and resize", lambda: [apply(image, cut) for image, cut in zip(images, cuts, strict=True)])
    report("write PNG", lambda: [crop.save(io.BytesIO(), format="PNG", compress_level=1) for crop in crops])


def report(name: str, work: Callable[[], object]) -> None:
    """Print pictures per second of a part."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"part": name, "pictures_per_second": round(STAGE_PICTURES / sorted(seconds)[1], 1)}))


def draw(root: Path, count: int, size: tuple[int, int]) -> None:
    """The pictures and their captions. Two hundred are drawn, the others are those turned, shifted and recoloured."""
    (root / "images").mkdir()
    (root / "captions").mkdir()
    drawn = [np.asarray(picture(seed, size)) for seed in range(min(count, 200))]
    for i in range(count):
        pixels = drawn[i % len(drawn)]
        if i >= len(drawn):
            dice = np.random.default_rng(i)
            other = drawn[int(dice.integers(len(drawn)))]
            pixels = np.roll(pixels, tuple(dice.integers(0, 800, 2)), axis=(0, 1)) // 2 + other[::-1, ::-1] // 2
        Image.fromarray(pixels).save(root / "images" / f"{i:05d}.jpg", quality=88)
        (root / "captions" / f"{i:05d}.txt").write_text(f"zolka, picture number {i}")


def build(root: Path, resolution: int) -> None:
    """Build the dataset; print what it took."""
    from vez import dataset
    from vez.events import Stage

    recipe = Recipe(images=Path("images"), captions=Path("captions"), resolution=resolution, held_out=4)
    project = Project(base="tiny", trigger="zolka", noun="coat", describes="a red coat")
    config = Config(project=project, dataset={"v1": recipe}, root=root)
    count = len(list((root / "images").iterdir()))
    began = time.perf_counter()
    stages = {}
    for event in dataset.build(config, "v1"):
        if isinstance(event, Stage):
            stages[event.name] = round(time.perf_counter() - began, 1)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {"part": "whole build", "pictures": count, "cores": os.cpu_count(), "seconds": round(seconds, 1)}
    row |= {"pictures_per_second": round(count / seconds, 1), "peak_mib": round(peak), "stages_began_at": stages}
    print(json.dumps(row))


if __name__ == "__main__":
    main()
