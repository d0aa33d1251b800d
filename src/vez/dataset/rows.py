"""A frozen dataset as it lies on disk, and how it is opened.

The artifact (``.vez/datasets/<name>-<first 8 of id>/``) holds ``images/`` (the training pictures, PNG), ``masks/``
where the dataset has masks, ``moved/`` where it has random crops (`Moved`), and one JSON object a line in
``rows.jsonl`` (`Row`), ``findings.jsonl`` (`vez.images.findings.Finding`), ``dropped.jsonl`` (`Dropped`) and
``provenance.jsonl`` (`vez.images.provenance.Provenance`, of the pictures that are in it); and ``card.md``, its
description for people.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vez.config import CropName
from vez.errors import StoreError
from vez.images import provenance
from vez.images.findings import Finding
from vez.images.pixels import pixels_sha256
from vez.images.provenance import Provenance
from vez.store import open_artifact, write_atomic

KIND: Final = "dataset"
VERSION: Final = 4  # raised when the same pictures and settings would give another dataset


@dataclass(frozen=True)
class Moved:
    """A training picture cut at another place, of the same size; files relative to the artifact."""

    file: str
    sha256: str
    """Of its pixels."""
    box: tuple[int, int, int, int]
    """In pixels of the upright picture."""
    mask: str = ""


@dataclass(frozen=True)
class Row:
    """One training picture of a dataset."""

    file: str
    """The training picture, relative to the artifact."""
    sha256: str
    """Of the training picture's pixels (`images.pixels.pixels_sha256`): the image id."""
    source: str
    """The person's file, relative to the dataset's folder of pictures."""
    source_sha256: str
    machine: str | None
    """What the captioner said; None where it was not asked, because the caption is by hand."""
    caption: str
    """What is trained on."""
    hand: bool
    """The caption was written by hand."""
    split: Literal["train", "held_out"]
    crop: CropName = "full"
    """Which part of the picture it shows."""
    box: tuple[int, int, int, int] = (0, 0, 0, 0)
    """(left, top, right, bottom) of that part in pixels of the upright picture."""
    upright: int = 0
    """Width of the upright picture in pixels; 0: not known."""
    boxed: Literal["auto", "hand", "face"] = "auto"
    """Who chose the box."""
    width: int = 0
    height: int = 0
    """Of the training picture, in pixels."""
    mask: str = ""
    """Its mask (8-bit grey PNG, white is subject), relative to the artifact; empty: none."""
    group: str = ""
    """Name of the source group: rows of one group show one scene, and never stand in different splits."""
    licence: str = ""
    """SPDX-like id, from the picture's provenance."""
    moved: tuple[Moved, ...] = ()
    """The same picture cut at other places (``random_crops``): each sample of the row shows it or one of these."""

    @property
    def views(self) -> tuple["Row", ...]:
        """What its samples show: the row as it was cut, then as each other place would make it."""
        plain = replace(self, moved=())
        elsewhere = (replace(plain, file=m.file, sha256=m.sha256, box=m.box, mask=m.mask) for m in self.moved)
        return (plain, *elsewhere)

    @property
    def table(self) -> dict[str, Any]:
        """The row as it lies in ``rows.jsonl``."""
        return {key: value for key, value in asdict(self).items() if key != "moved" or value}

    @property
    def scale(self) -> float:
        """Training pixels per picture pixel; above 1 the picture was enlarged."""
        left, _, right, _ = self.box
        return self.width / (right - left) if right > left else 1.0


@dataclass(frozen=True)
class Dropped:
    """A picture that was left out, and why: the check that found it (or "excluded", by hand) and the reason."""

    file: str
    reason: str
    check: str = ""


@dataclass(frozen=True)
class Dataset:
    """A frozen dataset. ``config`` is what it was made with."""

    path: Path
    id: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]
    dropped: tuple[Dropped, ...]
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name in vez.toml."""
        folder = self.path.name.removeprefix(".").removesuffix(".partial")  # also while it is being made
        return folder.rpartition("-")[0] or folder

    @cached_property
    def train(self) -> tuple[Row, ...]:
        """The rows trained on, in order."""
        return tuple(row for row in self.rows if row.split == "train")

    @cached_property
    def held_out(self) -> tuple[Row, ...]:
        """The rows kept from training, in order."""
        return tuple(row for row in self.rows if row.split == "held_out")

    @cached_property
    def provenance(self) -> dict[str, Provenance]:
        """Source file → where it comes from. Raises DataError where provenance.jsonl is damaged."""
        return provenance.read(self.path)

    @property
    def resolution(self) -> int:
        """Side of the square training pictures in pixels; with buckets, the square root of their area."""
        return int(self.config["resolution"])

    def pixels(self, row: Row) -> NDArray[np.uint8]:
        """The training picture of a row: (H, W, 3) uint8. Raises StoreError if it was changed since the build."""
        with Image.open(self.path / row.file) as image:
            rgb = image.convert("RGB")
        if pixels_sha256(rgb) != row.sha256:
            raise StoreError(
                f"{self.path / row.file} was changed since the dataset was made; delete the folder and build"
            )
        return np.array(rgb)

    def mask(self, row: Row) -> NDArray[np.uint8] | None:
        """The mask of a row, (H, W) uint8, 255 where the subject is; None where it has none."""
        if not row.mask:
            return None
        with Image.open(self.path / row.mask) as image:
            return np.array(image.convert("L"))


def load(path: Path) -> Dataset:
    """Open a dataset's folder. Raises StoreError where it is not a finished dataset."""
    artifact = open_artifact(path)
    if artifact.kind != KIND:
        raise StoreError(f"{path} is a {artifact.kind}, not a {KIND}")
    try:
        rows = tuple(_row(row) for row in lines(path / "rows.jsonl"))
        findings = tuple(Finding(**row) for row in lines(path / "findings.jsonl"))
        dropped = tuple(Dropped(**row) for row in lines(path / "dropped.jsonl"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} cannot be read as a dataset ({error}); delete the folder and build again") from error
    return Dataset(path, artifact.id, rows, findings, dropped, artifact.config)


def read_moved(table: Mapping[str, Any]) -> Moved:
    """What `dataclasses.asdict` made of one and JSON kept. Raises KeyError and TypeError where it is no such thing."""
    return Moved(**{**table, "box": tuple(table["box"])})


def _row(table: Mapping[str, Any]) -> Row:
    table = {**table}  # a TypeError, where the line held no object
    moved = tuple(read_moved(one) for one in table.get("moved", ()))
    return Row(**{**table, "box": tuple(table.get("box", (0,) * 4)), "moved": moved})


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a .jsonl file. Raises OSError or ValueError."""
    # not splitlines(): a caption may hold other characters that Python takes for the end of a line
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a .jsonl file whole or not at all. Raises StoreError."""
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
