"""A small finished dataset on disk, and how to tell that a base was left as it was."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from vez import dataset as datasets
from vez.base import Base
from vez.dataset import Dataset
from vez.images.pixels import pixels_sha256
from vez.store import making

SIZE = 64
TRIGGER = "zolka"
CAPTIONS = [
    f"{TRIGGER}, a girl wearing {TRIGGER} in the snow",
    f"{TRIGGER}, a woman wearing {TRIGGER} in a forest, green trees",
    f"{TRIGGER}, a doll in {TRIGGER}, wood fence",
    f"{TRIGGER}, a girl in {TRIGGER} standing on stairs",
    f"{TRIGGER}, a mannequin wearing {TRIGGER}, plain background",
    f"{TRIGGER}, a woman in {TRIGGER} sitting on a bench",
    f"{TRIGGER}, a girl wearing {TRIGGER} at night, houses",
    f"{TRIGGER}, the lower part of {TRIGGER}",
]


def make_dataset(
    folder: Path, *, pictures: int = 8, held_out: int = 2, shapes: Sequence[tuple[int, int]] = ((SIZE, SIZE),)
) -> Dataset:
    """A finished dataset of coloured noise of the shapes in turn, the last ones held out."""
    dice = np.random.default_rng(7)
    config = {"resolution": SIZE, "pictures": pictures}
    with making(folder, kind=datasets.KIND, parents={}, config=config, version=datasets.VERSION) as made:
        (made.path / "images").mkdir(exist_ok=True)
        rows = []
        for i in range(pictures):
            coarse = dice.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            width, height = shapes[i % len(shapes)]
            image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
            image.save(made.path / "images" / f"{i:02d}.png")
            rows.append(
                {
                    "file": f"images/{i:02d}.png",
                    "sha256": pixels_sha256(image),
                    "source": f"{i:02d}.jpg",
                    "source_sha256": f"{i:064x}",
                    "machine": None,
                    "caption": CAPTIONS[i % len(CAPTIONS)],
                    "hand": True,
                    "split": "held_out" if i >= pictures - held_out else "train",
                    "box": (0, 0, width, height),
                    "width": width,
                    "height": height,
                    "group": f"{i:02d}.jpg",
                }
            )
        for name, lines in (("rows", rows), ("findings", []), ("dropped", [])):
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (made.path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return datasets.load(folder)


def fingerprint(base: Base) -> dict[str, float]:
    """One number per weight of U-Net and text encoder; it tells a changed, missing or renamed one."""
    networks = {"unet": base.unet, "text": base.text_encoder}
    return {
        f"{name}.{key}": float(value.double().abs().sum())
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
