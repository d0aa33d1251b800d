"""The pictures that kohya's file names: copied into the project where they are on this machine."""

import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any, Final

from vez.dataset.imports import Imported, import_dataset
from vez.errors import ConfigError, VezError
from vez.kohya_config import read
from vez.kohya_config.read import Folder, Said, shown

DATASET: Final = "v1"
_TOPS: Final = ("images", "captions", "masks")


def bring(said: Said, folder: Path, *, wanted: bool) -> tuple[Said, tuple[Imported, ...]]:
    """Import the pictures into the project ``folder``, if ``wanted``; with what a dataset config beside them says.

    Raises ConfigError and DataError; nothing is then left of what was imported.
    """
    extension = said.values.get("caption_extension")
    if extension is not None and not isinstance(extension, str):
        raise ConfigError(f"caption_extension is {shown(extension)} in {said.path}; expected what the names end in")
    remarks = list(said.remarks)
    source: Path | None = None
    if said.source == "dataset config":
        source, extension = said.path, None
    elif "dataset_config" in said.values:
        source, extension = _found(said, "dataset_config", Path.is_file, remarks), None
        if source is not None:
            inner = read.dataset_values(source)
            said = replace(said, values={**said.values, **inner.values}, folders=inner.folders, trigger=inner.trigger,
                           noun=inner.noun)  # fmt: skip
            remarks += inner.remarks
    elif "train_data_dir" in said.values:
        source = _found(said, "train_data_dir", Path.is_dir, remarks)
    if source is not None and source.is_file() and not _has_folder(source):
        remarks.append(f"none of the folders that {source.name} names is on this machine; no picture was copied")
        source = None
    if source is None or not wanted:
        return replace(said, remarks=tuple(remarks)), ()
    imported = [import_dataset(source, folder, name=DATASET, layout="kohya", caption_extension=extension)]
    try:
        classes = None
        if "reg_data_dir" in said.values and source.is_dir() and len(imported[0].parts) == 1:
            classes = _found(said, "reg_data_dir", Path.is_dir, remarks)
        if classes is not None:
            name = f"{DATASET}-class"
            made = import_dataset(classes, folder, name=name, layout="kohya", caption_extension=extension)
            imported.append(_as_class(made))
    except VezError:
        take_back(imported, folder)
        raise
    counted = tuple(
        Folder(of.name, of.repeats, of.pictures, of.words)
        for made in imported
        for part in made.parts
        if part.role == "concept"
        for of in part.folders
    )
    trigger, noun = read.words(counted)
    guess = trigger or said.trigger or imported[0].trigger
    said = replace(said, remarks=tuple(remarks), folders=counted, trigger=guess, noun=noun or said.noun)
    return said, tuple(imported)


def take_back(imported: Iterable[Imported], folder: Path) -> None:
    """Remove what was imported, and the folders that are then empty."""
    for made in imported:
        for part in made.parts:
            for top in _TOPS:
                shutil.rmtree(folder / top / part.name, ignore_errors=True)
    for top in _TOPS:
        with suppress(OSError):  # not there, or other things lie in it
            (folder / top).rmdir()


def _found(said: Said, option: str, is_there: Callable[[Path], bool], remarks: list[str]) -> Path | None:
    """Where a path of the file leads on this machine: beside the file, or from here; None, with a remark: nowhere."""
    named = said.values[option]
    if not isinstance(named, str):
        raise ConfigError(f"{option} is {shown(named)} in {said.path}; expected a path")
    for path in (said.path.absolute().parent / named, Path(named).absolute()):
        with suppress(OSError, ValueError):  # a name that no file can have
            if is_there(path):
                return path
    windows = " (a path of Windows)" if PureWindowsPath(named).drive else ""
    remarks.append(f"{option} = {shown(named)}{windows} is not on this machine; no picture was copied from it")
    return None


def _has_folder(path: Path) -> bool:
    """Whether any folder that a dataset config names is there."""
    table: dict[str, Any] = read.parsed(path)
    datasets = table.get("datasets", [])
    subsets = [subset for dataset in datasets for subset in dataset.get("subsets", [])]
    for subset in subsets:
        with suppress(OSError, ValueError):
            if (path.absolute().parent / str(subset.get("image_dir", ""))).is_dir() and subset.get("image_dir"):
                return True
    return not subsets  # the import says what is wrong with it


def _as_class(made: Imported) -> Imported:
    """A reg_data_dir, which looks like any other folder of kohya's, as class pictures."""
    (part,) = made.parts
    line = f'images = "images/{part.name}"'
    return replace(
        made,
        parts=(replace(part, role="class"),),
        tables=made.tables.replace(line, f'{line}\nrole = "class"'),
        trigger="",
    )
