"""Training pictures cut at other places (``random_crops``): made when the picture is, and frozen with it.

vez keeps latents, so a crop cannot be drawn anew for each sample, as kohya's random_crop does. Instead a row has some
places, all of them frozen, and each of its samples draws one (`vez.samples`). Everything else reads the row alone:
checks, captions, the linter, validation, and the held-out pictures, which have one place only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from PIL import Image

from vez.config import Dataset as Recipe
from vez.dataset.rows import Moved, Row
from vez.events import Note
from vez.images.crop import Box, Cut, apply, apply_to_mask
from vez.images.elsewhere import elsewhere
from vez.images.pixels import pixels_sha256

FOLDER: Final = "moved"

Save = Callable[[Image.Image, str], None]
"""Writes a picture to a file, named relative to the dataset."""


def folders(recipe: Recipe) -> tuple[str, ...]:
    """The folders of pictures that a dataset of this recipe has."""
    return ("images", *(["masks"] if recipe.masks else []), *([FOLDER] if recipe.random_crops > 1 else []))


def cut_elsewhere(
    recipe: Recipe,
    image: Image.Image,
    cut: Cut,
    name: str,
    save: Save,
    *,
    seed: str,
    faces: Sequence[Box] = (),
    subject: Image.Image | None = None,
) -> tuple[Moved, ...]:
    """Cut the training picture ``name`` at other places too, and save what comes of it, with its masks.

    ``seed`` decides the places: the SHA-256 of the person's file, so that they are the same in every build.
    """
    made = []
    boxes = elsewhere(image, cut, count=recipe.random_crops - 1, seed=seed, faces=faces, subject=subject)
    for number, box in enumerate(boxes, start=1):
        there = replace(cut, box=box)
        picture = apply(image, there)
        # what stands before the last "-" is a training picture's own stem: no two of these are called alike
        stem = f"{FOLDER}/{PurePosixPath(name).stem}-{number}"
        save(picture, f"{stem}.png")
        if subject is not None:
            save(apply_to_mask(subject, there), f"{stem}.mask.png")
        made.append(
            Moved(f"{stem}.png", pixels_sha256(picture), box, f"{stem}.mask.png" if subject is not None else "")
        )
    return tuple(made)


def is_whole(into: Path, file: str, sha256: str, mask: str) -> bool:
    """Whether a training picture of these pixels lies in ``into``, with its mask: a kill may have lost what was still
    in memory."""
    try:
        with Image.open(into / file) as image:
            if pixels_sha256(image.convert("RGB")) != sha256:
                return False
        if mask:
            with Image.open(into / mask) as drawn:
                drawn.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def said(rows: Sequence[Row], recipe: Recipe) -> Iterator[Note]:
    """A word on pictures that could not be cut at as many places as were asked for."""
    trained = [row for row in rows if row.split == "train"]
    fewer = [row for row in trained if len(row.moved) + 1 < recipe.random_crops]
    if fewer:
        single = sum(not row.moved for row in fewer)
        yield Note(
            f"random_crops = {recipe.random_crops}: {len(fewer)} of {len(trained)} training pictures are cut at fewer "
            f"places, {single} of them at one: they have a box by hand or a training picture's own shape, or elsewhere "
            "would lose more than a tenth of what the chosen crop shows"
        )
