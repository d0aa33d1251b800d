"""A frozen dataset in the folders that other trainers read.

kohya
    ``<N>_<words>/<stem>.png`` with ``<stem>.txt``: the folder given is kohya's train_data_dir, or reg_data_dir for the
    role "class". ``dataset.toml`` says the same for --dataset_config; ``dataset-masked.toml`` with the masks, for
    --masked_loss, without which kohya refuses the key. Held-out pictures lie in ``held_out/``, which kohya ignores
    because its name begins with no number.
imagefolder
    ``train/`` and ``validation/``, each with ``metadata.jsonl`` (file_name, text): Hugging Face's ImageFolder.
sidecars
    ``<stem>.png`` with ``<stem>.txt``, flat; held-out pictures in ``held_out/``.

With each go ``README.md`` (the dataset's card), ``provenance.jsonl`` and, where there are any, ``masks/``. The pictures
are written anew from their pixels, so no file carries metadata.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import tomlkit
from PIL import Image
from pydantic import ValidationError

from vez.config import Project
from vez.dataset.card import card
from vez.dataset.diff import label
from vez.dataset.rows import Dataset, Row
from vez.errors import ConfigError, StoreError
from vez.images import provenance
from vez.images.provenance import Provenance
from vez.images.wording import visible
from vez.store import file_sha256, write_atomic

Layout = Literal["kohya", "imagefolder", "sidecars"]
HELD_OUT: Final = "held_out"
MASKS: Final = "masks"
_NOT_IN_NAMES: Final = frozenset('/\\:*?"<>|')
_LONGEST_WORDS: Final = 100
_STEP, _FINE_STEP = 64, 8  # kohya's bucket steps; 8 pixels are one of the autoencoder's


@dataclass(frozen=True)
class _Place:
    """Where a row's picture goes, relative to the exported folder."""

    row: Row
    picture: str
    mask: str


def export(dataset: Dataset, folder: Path, *, layout: Layout, repeats: int = 1, words: str = "") -> list[Path]:
    """Write the dataset into a new folder in one of the layouts above; all of it or nothing.

    ``repeats`` and ``words`` name kohya's folder; without words it is called by the trigger word and the class noun.
    Returns every file written. Raises ConfigError for repeats or words that no folder can have, StoreError where the
    folder holds something already, cannot be written, or a picture was changed since the build.
    """
    if repeats < 1:
        raise ConfigError(f"repeats is {repeats}; kohya leaves out a folder of less than 1")
    folder = Path(os.path.abspath(folder))  # without the dots of ../folder, which dataset.toml would keep
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} is not empty; name a new folder")
    words = _words(dataset, words)
    under = {"train": f"{repeats}_{words}", "held_out": HELD_OUT}
    if layout != "kohya":
        under = {"train": "train", "held_out": "validation"} if layout == "imagefolder" else {**under, "train": "."}
    places = list(_places(dataset, under))
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir(parents=True)
        _write_pictures(dataset, places, partial)
        if layout == "imagefolder":
            _write_metadata(places, partial, under)
        else:
            _write_captions(places, partial)
        if layout == "kohya":
            _write_configs(dataset, places, partial, folder / under["train"], repeats=repeats, words=words)
        provenance.write(partial, [_record(dataset, place, partial) for place in places])
        notes = _notes(dataset, places, layout, under)
        text = f"{card(dataset, _project(dataset))}\n## This folder\n\n{notes}\n"
        write_atomic(partial / "README.md", text.encode())
        if folder.exists():
            folder.rmdir()  # empty, as was seen above
        partial.rename(folder)
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _words(dataset: Dataset, words: str) -> str:
    """What follows the number in kohya's folder name. Raises ConfigError for what no folder can be called."""
    if words:
        bad = [c for c in words if c in _NOT_IN_NAMES or not c.isprintable()]
        if bad or words != words.strip(" .") or len(words.encode()) > _LONGEST_WORDS:
            raise ConfigError(
                f"no folder can be called by {visible(words)!r}; use at most {_LONGEST_WORDS} letters, digits, spaces, "
                "- and _, and no dot or space at the end"
            )
        return words
    said = dataset.config.get("project")
    said = said if isinstance(said, Mapping) else {}
    parts = ("noun",) if dataset.config.get("role") == "class" else ("trigger", "noun")
    named = " ".join(str(said[part]) for part in parts if part in said) or dataset.name
    kept = "".join("-" if c in _NOT_IN_NAMES or not c.isprintable() else c for c in named)
    return kept.encode()[:_LONGEST_WORDS].decode(errors="ignore").strip(" .") or "pictures"


def _places(dataset: Dataset, under: Mapping[str, str]) -> Iterator[_Place]:
    """Names as in the dataset, whose training pictures all have different ones."""
    for row in dataset.rows:
        name = Path(row.file).name
        if (
            not name.endswith(".png")
            or name.startswith(".")
            or "\\" in name
            or Path(row.file).parts != ("images", name)
        ):
            raise StoreError(f"{dataset.path} names a picture {visible(row.file)!r}; it is not of vez's making")
        place = under[row.split]
        masked = f"{MASKS}/{name}" if row.split == "train" else f"{MASKS}/{HELD_OUT}/{name}"
        yield _Place(row, name if place == "." else f"{place}/{name}", masked if row.mask else "")


def _write_pictures(dataset: Dataset, places: Sequence[_Place], to: Path) -> None:
    for place in places:
        _write_png(to / place.picture, Image.fromarray(dataset.pixels(place.row)))
        mask = dataset.mask(place.row)
        if mask is not None:
            _write_png(to / place.mask, Image.fromarray(mask))


def _write_png(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    out = BytesIO()
    image.save(out, format="PNG")
    path.write_bytes(out.getvalue())


def caption_line(caption: str) -> str:
    """A caption as one line: what ends a line becomes a space. kohya reads the first line only."""
    return " ".join(caption.replace("\r", "\n").split("\n")).strip()


def _write_captions(places: Sequence[_Place], to: Path) -> None:
    for place in places:
        # the line end stays also where the caption is empty: an empty file stops kohya
        path = to / place.picture.removesuffix(".png")
        path.with_name(path.name + ".txt").write_bytes((caption_line(place.row.caption) + "\n").encode())


def _write_metadata(places: Sequence[_Place], to: Path, under: Mapping[str, str]) -> None:
    for split, folder in under.items():
        rows = [
            {"file_name": Path(place.picture).name, "text": caption_line(place.row.caption)}
            for place in places
            if place.row.split == split
        ]
        if rows:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (to / folder / "metadata.jsonl").write_bytes(text.encode())


def _write_configs(
    dataset: Dataset, places: Sequence[_Place], to: Path, folder: Path, *, repeats: int, words: str
) -> None:
    """dataset.toml, and dataset-masked.toml where a picture has a mask; ``folder`` is where the pictures will lie."""
    trained = [place for place in places if place.row.split == "train"]
    masked = [place for place in trained if place.mask]
    is_class = dataset.config.get("role") == "class"
    subset: dict[str, Any] = {"image_dir": str(folder), "num_repeats": repeats}
    # class_tokens and is_reg are unknown to kohya where there is a conditioning_data_dir
    plain = {**subset, "class_tokens": words, **({"is_reg": True} if is_class else {})}
    (to / "dataset.toml").write_bytes(_config(dataset, trained, plain).encode())
    if not masked or is_class:
        return
    for place in trained:  # kohya stops unless every picture has one; white: the loss counts everywhere
        if not place.mask:
            white = Image.new("L", (place.row.width, place.row.height), 255)
            _write_png(to / MASKS / Path(place.picture).name, white)
    with_masks = {**subset, "conditioning_data_dir": str(folder.parent / MASKS)}
    (to / "dataset-masked.toml").write_bytes(_config(dataset, trained, with_masks).encode())


def _config(dataset: Dataset, trained: Sequence[_Place], subset: Mapping[str, Any]) -> str:
    """The TOML of kohya's --dataset_config (docs/config_README-en.md there)."""
    shapes = {(place.row.width, place.row.height) for place in trained if place.row.width}
    document = tomlkit.document()
    document.add(tomlkit.comment("For --dataset_config. The folders below are where they were exported to."))
    document["general"] = {"caption_extension": ".txt"}  # kohya's default is .caption
    settings: dict[str, Any] = {"resolution": dataset.resolution}
    if len(shapes) == 1:
        settings["resolution"] = list(*shapes)
    if len(shapes) > 1:
        sides = [side for shape in shapes for side in shape]
        step = _STEP if all(side % _STEP == 0 for side in sides) else _FINE_STEP
        settings |= {
            "enable_bucket": True,
            "bucket_no_upscale": True,  # every picture is trained at the size it has
            "bucket_reso_steps": step,
            "min_bucket_reso": max(step, min(*sides, dataset.resolution) // step * step),
            "max_bucket_reso": -(-max(*sides, dataset.resolution) // step) * step,
        }
    datasets = tomlkit.aot()
    table = tomlkit.table()
    table.update(settings)
    subsets = tomlkit.aot()
    one = tomlkit.table()
    one.update(subset)
    subsets.append(one)
    table["subsets"] = subsets
    datasets.append(table)
    document["datasets"] = datasets
    return tomlkit.dumps(document)


def _record(dataset: Dataset, place: _Place, at: Path) -> Provenance:
    """Where an exported picture comes from: the source's record, its own hash, and the part it shows."""
    row = place.row
    known = dataset.provenance.get(row.source, Provenance(row.source, licence=row.licence))
    part = f" {list(row.box)}" if any(row.box) else ""
    note = f"{row.crop}{part} of {label(replace(row, crop='full'))}, dataset {dataset.name} {dataset.id[:8]}"
    return replace(
        known,
        file=place.picture,
        sha256=file_sha256(at / place.picture),
        original_sha256=known.original_sha256 or row.source_sha256,
        note=f"{known.note}; {note}" if known.note else note,
    )


def _project(dataset: Dataset) -> Project | None:
    said = dataset.config.get("project")
    if not isinstance(said, Mapping):
        return None
    try:
        return Project(base="unknown", **{key: said[key] for key in ("trigger", "noun", "describes")})
    except (KeyError, ValidationError):
        return None


def _notes(dataset: Dataset, places: Sequence[_Place], layout: Layout, under: Mapping[str, str]) -> str:
    """How the folder is read, as Markdown."""
    is_class = dataset.config.get("role") == "class"
    held_out = any(place.row.split == "held_out" for place in places)
    trained = [place for place in places if place.row.split == "train"]
    lines = {
        "kohya": [
            f"- kohya's sd-scripts: give this folder as `--{'reg' if is_class else 'train'}_data_dir` with "
            "`--caption_extension .txt`, or give `dataset.toml` as `--dataset_config`. Its folders are absolute: "
            "mend them where this folder is moved.",
            *(["- A subset with `is_reg` stands beside a concept's: copy its table there."] if is_class else []),
            *([f"- `{HELD_OUT}/` holds pictures kept from training; kohya ignores it."] if held_out else []),
        ],
        "imagefolder": [
            '- Hugging Face datasets: `load_dataset("imagefolder", data_dir=…)`; columns `image` and `text`'
            + (", splits `train` and `validation` (the held-out pictures)." if held_out else ".")
        ],
        "sidecars": [
            "- Beside every picture lies its caption, `<stem>.txt`.",
            *([f"- `{HELD_OUT}/` holds pictures kept from training."] if held_out else []),
        ],
    }[layout]
    if any(place.mask for place in trained):
        lines.append(f"- `{MASKS}/` holds masks by the pictures' names: white is the subject.")
        if layout == "kohya" and not is_class:
            lines.append("- For a masked loss: `--masked_loss` with `--dataset_config dataset-masked.toml`.")
    if any(place.row.moved for place in trained):
        lines.append("- The other places at which vez trains on these pictures (`random_crops`) are not here.")
    lines.append("- `provenance.jsonl` says of every picture where it comes from.")
    return "\n".join(lines)
