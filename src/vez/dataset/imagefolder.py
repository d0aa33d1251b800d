"""Hugging Face's ImageFolder with metadata: pictures, and metadata.jsonl or metadata.csv with file_name and a text."""

import csv
import io
import json
from pathlib import Path, PurePosixPath
from typing import Any, Final

from vez.dataset.remarks import Remarks
from vez.dataset.sidecars import SUFFIXES, Found, holds_pictures, leads_out, shown
from vez.errors import DataError

METADATA: Final = ("metadata.jsonl", "metadata.csv")
_HELD_OUT: Final = frozenset({"validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation"})
_SPLITS: Final = ("train", "training", *sorted(_HELD_OUT))
_TEXTS: Final = ("text", "caption", "captions", "prompt", "description")
_MOST_BYTES: Final = 200_000_000


def metadata_files(source: Path) -> list[Path]:
    """The metadata files of a folder: its own, or one for each split below it."""
    folders = [source, *(source / split for split in _SPLITS), *(source / "data" / split for split in _SPLITS)]
    return [path for folder in folders for name in METADATA if (path := folder / name).is_file()]


def read(source: Path, remarks: Remarks) -> list[Found]:
    """The pictures of all splits with their captions, in the order of the metadata.

    Raises DataError where there is no metadata, where it is damaged, or where it names a file outside its folder.
    """
    files = metadata_files(source)
    if not files:
        raise DataError(f"{source} has no metadata.jsonl or metadata.csv, neither itself nor in train/")
    found: dict[Path, Found] = {}
    for metadata in files:
        for row in _rows(metadata):
            path = _inside(metadata, row.get("file_name"))
            name = shown(path, source)
            if not path.is_file() or leads_out(path, remarks, root=source):
                remarks.add("no file", name)
            elif path.suffix.lower() not in SUFFIXES - {".jxl"}:
                remarks.add("unknown kind", name)
            elif path in found:
                remarks.add("several texts", name)
            else:
                parts = {part.lower() for part in path.relative_to(source).parts[:-1]}
                held_out = bool(parts & _HELD_OUT)
                if held_out:
                    remarks.add("validation", name)
                found[path] = Found(path, name, _text(row, name, remarks), held_out)
    for folder in sorted({metadata.parent for metadata in files} | {path.parent for path in found}):
        for path in sorted(folder.iterdir()) if holds_pictures(folder) else ():
            if path.suffix.lower() in SUFFIXES and path.is_file() and path not in found:
                remarks.add("no row", shown(path, source))
    return list(found.values())


def _rows(metadata: Path) -> list[dict[str, Any]]:
    try:
        if metadata.stat().st_size > _MOST_BYTES:
            raise DataError(f"{metadata} is larger than {_MOST_BYTES} bytes, which no list of captions is")
        text = metadata.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{metadata} cannot be read ({error}); save it as UTF-8") from error
    if metadata.suffix == ".csv":
        try:
            return [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""), strict=True)]
        except csv.Error as error:
            raise DataError(f"{metadata} is not CSV ({error}); mend it") from error
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{metadata}, line {number} is not JSON ({error}); mend it or take it out") from error
        if not isinstance(row, dict):
            raise DataError(f'{metadata}, line {number} is no object with "file_name"; mend it or take it out')
        rows.append(row)
    return rows


def _inside(metadata: Path, name: Any) -> Path:
    """The file that a row names, below the folder of the metadata. Raises DataError for one that is not."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{metadata} has a row without file_name; every row names a picture")
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
        raise DataError(f"{metadata} names {name!r}, which lies outside its folder; do not use this dataset as it is")
    return metadata.parent / parts


def _text(row: dict[str, Any], name: str, remarks: Remarks) -> str:
    said = next((row[column] for column in _TEXTS if row.get(column)), None)
    if isinstance(said, list):
        if len(said) > 1:
            remarks.add("several texts", name)
        said = next((text for text in said if isinstance(text, str)), None)
    if not isinstance(said, str):
        remarks.add("no text", name)
        return ""
    return " ".join(line.strip() for line in said.replace("\r", "\n").split("\n") if line.strip())
