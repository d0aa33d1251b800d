"""The control of class pictures: what the base itself draws for the captions without the trigger, as a dataset."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from PIL import Image

from vez.base import Base
from vez.config import Precision, Project, Prompt, Sampling
from vez.dataset import Dataset, load
from vez.dataset.rows import KIND, Row, write_lines
from vez.draw import Brush, Drawing, draw_arm
from vez.events import Event, Stage
from vez.images.pixels import pixels_sha256
from vez.preserve import uncalled
from vez.rewording import first_wording
from vez.store import artifact_id, file_sha256, find, making
from vez.sweep import BASE, Arm

FIRST_SEED: Final = 10_000
"""The first of their noises: no prompt that is scored reaches it."""

VERSION: Final = 1
"""Counts up when the same dataset and base would give other pictures."""

WRITERS: Final = 2


def class_texts(dataset: Dataset, project: Project) -> list[str]:
    """The training captions, of alternatives the first, with the noun in the trigger's place."""
    words = {"trigger": project.trigger, "noun": project.noun}
    return [uncalled(first_wording(row.caption), **words) for row in dataset.train]


def class_pictures(
    base: Base,
    dataset: Dataset,
    into: Path,
    *,
    project: Project,
    sampling: Sampling,
    precision: Precision | None,
) -> Generator[Event, None, Dataset]:
    """As many pictures of the class as the dataset trains on, drawn by the base, with the texts they were drawn for.

    An artifact at ``into``, made once; cut short it goes on. Each has a noise of its own and the size of training
    pictures; guidance, steps and solver are the study's. Nothing is held out. Raises StoreError where it cannot be
    written.
    """
    how = sampling.model_copy(update={"size": dataset.resolution})
    texts = class_texts(dataset, project)
    parents = {"dataset": dataset.id, "base": base.sha256}
    drawn = how.model_dump(include={"steps", "cfg", "solver", "negative", "size", "batch"})
    brush = Brush(base, how, precision)
    config = {"resolution": dataset.resolution, "texts": texts, "sampling": drawn, "dtype": brush.dtype_name}
    if find(into, artifact_id(KIND, parents, config, VERSION)) is None:
        drawings = [
            Drawing(Prompt(text=text, id=f"{i:04d}"), FIRST_SEED + i, f"images/{i:04d}.png", "")
            for i, text in enumerate(texts)
        ]
        yield Stage("controls", len(drawings), f"{len(drawings)} pictures of the class")
        with (
            making(into, kind=KIND, parents=parents, config=config, version=VERSION) as made,
            ThreadPoolExecutor(WRITERS) as pool,
        ):
            yield from draw_arm(brush, BASE, Arm(None), drawings, into=made.path, plain={}, pool=pool)
            rows = [_row(made.path, one) for one in drawings]
            write_lines(made.path / "rows.jsonl", [row.table for row in rows])
            for name in ("findings", "dropped"):
                write_lines(made.path / f"{name}.jsonl", ())
    return load(into)


def _row(folder: Path, of: Drawing) -> Row:
    with Image.open(folder / of.file) as image:
        pixels, (width, height) = pixels_sha256(image.convert("RGB")), image.size
    return Row(
        file=of.file,
        sha256=pixels,
        source=of.file,
        source_sha256=file_sha256(folder / of.file),
        machine=None,
        caption=of.prompt.text,
        hand=False,
        split="train",
        box=(0, 0, width, height),
        width=width,
        height=height,
        group=of.file,
    )
