"""kohya's ways of naming a dataset: numbered folders, and the TOML or JSON of --dataset_config.

Facts are of sd-scripts (library/config_util.py, docs/config_README-en.md): ``<N>_<words>`` gives repeats and class
tokens of a folder below train_data_dir or reg_data_dir; a config gives both for each subset, and falls back from the
subset to its dataset to [general].
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vez.dataset.remarks import Remarks
from vez.dataset.sidecars import Reading, holds_pictures, shown
from vez.errors import DataError

DEFAULT_EXTENSION: Final = ".caption"
_TAKEN: Final = frozenset(
    {
        "image_dir",
        "num_repeats",
        "class_tokens",
        "is_reg",
        "caption_extension",
        "caption_prefix",
        "caption_suffix",
        "alpha_mask",
        "conditioning_data_dir",
        "resolution",
        "enable_bucket",
        "subsets",
        "enable_wildcard",
    }
)
_SHAPE: Final = "expected <folder>/<N>_<words>/picture.png, as in train/10_zolka hat/01.png"


@dataclass(frozen=True)
class Subset:
    """One folder of pictures, and how kohya reads it."""

    folder: Path
    repeats: int
    reading: Reading
    is_reg: bool = False
    alpha: bool = False
    """The transparency of the pictures is their mask."""
    masks: Path | None = None
    resolution: int | None = None
    """Square root of the area trained at; None: not said, or not a number that vez.toml could say."""
    buckets: bool = False


def number_and_words(name: str) -> tuple[int, str] | None:
    """What a folder's name says: repeats and class tokens; None where it begins with no number."""
    number, _, words = name.partition("_")
    try:
        return int(number), words
    except ValueError:
        return None


def numbered(folder: Path) -> bool:
    """Whether pictures lie in a numbered folder below this one."""
    return any(number_and_words(path.name) and holds_pictures(path) for path in _folders(folder))


def dotted(extension: str) -> str:
    """A caption extension with its dot, which kohya adds too. Raises DataError for what no file name ends in."""
    if not re.fullmatch(r"\.?[A-Za-z0-9][A-Za-z0-9._-]{0,19}", extension):
        raise DataError(f"caption_extension is {extension!r}; it is what the captions' names end in, as .txt")
    return extension if extension.startswith(".") else f".{extension}"


def from_folders(source: Path, extension: str | None, remarks: Remarks) -> list[Subset]:
    """The subsets of a train_data_dir; of the ``img`` and ``reg`` of kohya_ss; or of a numbered folder itself.

    A ``reg`` beside the numbered folders counts as reg_data_dir. Raises DataError, with what was expected and what is
    there, where there is none of these.
    """
    named = number_and_words(source.name)
    if named and holds_pictures(source) and not numbered(source):
        return [_subset(source, *named, is_reg=False, extension=extension)]
    train = source if numbered(source) or not numbered(source / "img") else source / "img"
    subsets = _below(train, False, extension, remarks, root=source)
    if not subsets:
        there = ", ".join(sorted(path.name for path in _folders(source))[:8]) or "no folder"
        raise DataError(f"{source} is no dataset of kohya's: {_SHAPE}; there is {there}")
    if numbered(source / "reg"):
        remarks.add("regularisation", "reg")
        subsets += _below(source / "reg", True, extension, remarks, root=source)
    return subsets


def from_config(path: Path, extension: str | None, remarks: Remarks) -> list[Subset]:
    """The subsets of a --dataset_config. Relative folders are looked for beside the file.

    Raises DataError for a file that is not one, a folder that is not there, or a fine-tuning subset (metadata_file).
    """
    config = _read(path)
    general = _table(config.get("general", {}), path)
    subsets: list[Subset] = []
    seen: set[Path] = set()
    for dataset in _tables(config.get("datasets", []), path):
        for subset in _tables(dataset.get("subsets", []), path):
            if "metadata_file" in subset:
                raise DataError(
                    f"{path} has a subset with metadata_file, for kohya's fine-tuning scripts; write its captions into "
                    "files beside the pictures and name their folder as image_dir"
                )
            layers = (subset, dataset, general)
            found = _from_tables(layers, path, extension, remarks)
            if found.repeats < 1:
                remarks.add("no repeats", shown(found.folder, path.parent))
            elif found.folder in seen:
                remarks.add("twice", shown(found.folder, path.parent))
            else:
                subsets.append(found)
            seen.add(found.folder)
            for table in layers:
                for key in sorted(set(table) - _TAKEN):
                    remarks.add("settings", f"{key} = {json.dumps(table[key], ensure_ascii=False, default=str)}")
    if not subsets:
        raise DataError(f"{path} names no folder of pictures; expected [[datasets]] with [[datasets.subsets]]")
    return subsets


def _below(folder: Path, is_reg: bool, extension: str | None, remarks: Remarks, *, root: Path) -> list[Subset]:
    subsets = []
    if holds_pictures(folder):
        remarks.add("beside folders", shown(folder, root.parent))
    for path in _folders(folder):
        named = number_and_words(path.name)
        if named is None:
            if holds_pictures(path):
                remarks.add("no number", shown(path, root))
        elif named[0] < 1:
            remarks.add("no repeats", shown(path, root))
        elif not holds_pictures(path):
            remarks.add("empty folder", shown(path, root))
        else:
            subsets.append(_subset(path, *named, is_reg=is_reg, extension=extension))
    return subsets


def _subset(folder: Path, repeats: int, words: str, *, is_reg: bool, extension: str | None) -> Subset:
    reading = Reading(extension or DEFAULT_EXTENSION, strict=extension is not None, words=words)
    return Subset(folder, repeats, reading, is_reg)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
        config = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as kohya's dataset config ({error})") from error
    return _table(config, path)


def _from_tables(layers: Sequence[Mapping[str, Any]], path: Path, extension: str | None, remarks: Remarks) -> Subset:
    def said(key: str, kind: type, default: Any) -> Any:
        value = next((table[key] for table in layers if table.get(key) is not None), default)
        if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise DataError(f"{path}: {key} is {value!r}, which kohya refuses; it must be of the kind {kind.__name__}")
        return value

    subset = layers[0]
    if not isinstance(subset.get("image_dir"), str) or not subset["image_dir"]:
        raise DataError(f"{path} has a subset without image_dir; name the folder of its pictures")
    folder = _found(path, subset["image_dir"])
    masks = subset.get("conditioning_data_dir")
    read_as = extension or dotted(said("caption_extension", str, DEFAULT_EXTENSION))
    wildcards = said("enable_wildcard", bool, False)
    if wildcards:
        remarks.add("wildcards", shown(folder, path.parent))
    reading = Reading(
        extension=read_as,
        lines="draw" if wildcards else "first",
        strict=extension is not None,
        words=said("class_tokens", str, None),
        before=said("caption_prefix", str, ""),
        after=said("caption_suffix", str, ""),
    )
    repeats = said("num_repeats", int, 1)
    named = number_and_words(folder.name)
    if named and "_" in folder.name and (named[0] != repeats or reading.words is None):
        remarks.add("folder name", shown(folder, path.parent))
    return Subset(
        folder,
        repeats,
        reading,
        is_reg=subset.get("is_reg") is True,
        alpha=subset.get("alpha_mask") is True,
        masks=_found(path, masks) if isinstance(masks, str) else None,
        resolution=_resolution(said("resolution", object, None), remarks),
        buckets=said("enable_bucket", bool, False),
    )


def _found(path: Path, named: str) -> Path:
    """A folder that a config names. Raises DataError where it is not on this machine."""
    folder = path.absolute().parent / named  # an absolute name stands for itself
    try:
        if folder.is_dir():
            return folder
    except (OSError, ValueError):
        pass  # a name that no folder can have
    raise DataError(f"{path} names the folder {named!r}, which is not there; mend the path (from {path.parent})")


def _resolution(value: Any, remarks: Remarks) -> int | None:
    sides = value if isinstance(value, list) else [value, value]
    if value is None:
        return None
    if len(sides) == 2 and all(isinstance(side, int) and not isinstance(side, bool) for side in sides):
        side = sides[0]
        if sides == [side, side] and 64 <= side <= 2048 and side % 8 == 0:
            return int(side)
    remarks.add("resolution", f"resolution = {json.dumps(value, default=str)}")
    return None


def _table(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path} is no dataset config of kohya's: expected a table, found {type(value).__name__}")
    return value


def _tables(value: Any, path: Path) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise DataError(f"{path} is no dataset config of kohya's: datasets and subsets are lists of tables")
    return [_table(entry, path) for entry in value]
