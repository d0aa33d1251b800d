"""Pictures from a folder on this machine. It is only read."""

import os
import stat
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from vez.collect.candidate import Candidate, Refused, Source
from vez.collect.entries import is_hidden, kind_of, readable
from vez.errors import DataError
from vez.images import provenance
from vez.images.provenance import Provenance

_MOST_BYTES: Final = 1_000_000_000  # more than any picture; a film is not to fill the memory
_SPECIAL: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def from_folder(folder: Path, *, most_bytes: int = _MOST_BYTES) -> Source:
    """The pictures in a folder and its subfolders, by name; the key is the path in the folder.

    Hidden files and what stands beside pictures (captions, tables) are passed over. Links that lead out of the folder,
    links to folders, pipes and devices are refused. Where a folder has a provenance.jsonl, its records go along.
    A candidate's ``read`` raises DataError where the file cannot be read or has more than ``most_bytes`` bytes.
    Raises DataError where the folder cannot be read, or a provenance.jsonl is damaged.
    """
    try:
        entries = _entries(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be read as a folder: {error.strerror}") from error
    return _walk(folder, entries, most_bytes)


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, the last first: a stack that gives it in order. Raises OSError."""
    with os.scandir(folder) as found:
        return sorted((folder / entry.name for entry in found), reverse=True)


def _walk(root: Path, waiting: list[Path], most_bytes: int) -> Source:
    inside = root.resolve()
    records: dict[Path, dict[str, Provenance]] = {}
    while waiting:
        path = waiting.pop()
        key = readable(path.relative_to(root).as_posix())
        if is_hidden(path.name):
            continue
        try:
            if stat.S_ISDIR(path.lstat().st_mode):
                waiting += _entries(path)
                continue
            why = _refusal(path, inside)
        except OSError as error:
            why = f"it cannot be read: {error.strerror}"
        except RuntimeError:  # what Path.resolve makes of it
            why = "it is a link that leads to itself"
        kind = kind_of(path.name)
        if kind == "beside":
            continue
        if why or kind == "archive":
            yield Refused(key, why or "it is an archive; collect from it by itself")
            continue
        if path.parent not in records:
            records[path.parent] = provenance.read(path.parent)
        record = records[path.parent].get(path.name, Provenance("", origin="folder"))
        record = replace(record, file="", sha256="", original_sha256="", retrieved="", origin=record.origin or "folder")
        yield Candidate(key, readable(path.name), partial(_read, path, most_bytes), record)


def _refusal(path: Path, inside: Path) -> str:
    """Why a file is not taken; empty: it is. Raises OSError."""
    if path.is_symlink():
        if not path.resolve(strict=True).is_relative_to(inside):
            return "it is a link that leads out of the folder; copy the picture itself"
        if path.is_dir():
            return "it is a link to a folder; its pictures are found where they lie"
    kind = _SPECIAL.get(stat.S_IFMT(path.stat().st_mode))
    return f"it is {kind}, not a file" if kind else ""


def _read(path: Path, most_bytes: int) -> bytes:
    try:
        # not to wait for a writer, should a pipe have taken the file's place
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError("it is no longer a file")
            data = file.read(most_bytes + 1)
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}") from error
    if len(data) > most_bytes:
        raise DataError(f"it has more than {most_bytes:,} bytes; make it smaller")
    return data
