"""Artifacts: a folder, a manifest.json that names its parents, and an id that is the SHA-256 of what made it.

manifest.json: ``{"id", "kind", "parents": {role: id}, "config", "version", "files": {relative path: sha256}}``.
A folder appears under its name only when it is finished: it is made in a sibling ``.<name>.partial`` and renamed.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from vez.errors import StoreError, no_room

MANIFEST = "manifest.json"
Line = TypeVar("Line", bound=BaseModel)
_MAKING = ".making.json"  # inside a partial folder: the id it is being made for


def _canonical(value: Any) -> Any:
    """JSON values only: paths as posix text, tuples as lists; anything else is refused rather than guessed at."""
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise StoreError("the keys of an artifact's configuration must be text")
        return {key: _canonical(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(v) for v in value]
    if isinstance(value, PurePath):
        return value.as_posix()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise StoreError(f"an artifact's configuration cannot hold {value!r} ({type(value).__name__}): give plain values")


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Raises StoreError for what JSON cannot say."""
    try:
        return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise StoreError(f"an artifact's configuration holds a number that is not finite: {error}") from error


def artifact_id(kind: str, parents: Mapping[str, str], config: Mapping[str, Any], version: int) -> str:
    """SHA-256 (64 hex digits) of what makes an artifact: kind, parents' ids, configuration, the stage's version."""
    text = canonical_json({"kind": kind, "parents": parents, "config": config, "version": version})
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk. ``files`` maps relative posix paths to the SHA-256 of their bytes."""

    path: Path
    id: str
    kind: str
    parents: dict[str, str]
    config: dict[str, Any]
    version: int
    files: dict[str, str]


def open_artifact(path: Path) -> Artifact:
    """Read an artifact's manifest; checks that every file it names is there (not its bytes: see `verify`).

    Raises StoreError where the folder, the manifest or a file is missing or the manifest is not one.
    """
    manifest = path / MANIFEST
    try:
        row = json.loads(manifest.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not a finished artifact: it has no {MANIFEST}; make it again") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{manifest} cannot be read ({error}); delete the folder and make it again") from error
    shape = {"id": str, "kind": str, "parents": dict, "config": dict, "version": int, "files": dict}
    if not isinstance(row, dict) or any(not isinstance(row.get(key), kind) for key, kind in shape.items()):
        raise StoreError(
            f"{manifest} is not a manifest: it needs {', '.join(shape)}; delete the folder and make it again"
        )
    for name in row["files"]:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise StoreError(f"{manifest} names {name!r}, which lies outside the artifact; do not use this folder")
        if not (path / relative).is_file():
            raise StoreError(f"{path} lacks {name!r}; delete the folder and make it again")
    return Artifact(path, **{key: row[key] for key in shape})


def verify(artifact: Artifact) -> None:
    """Compare every file's bytes with the manifest. Raises StoreError naming the first that differs."""
    for name, sha256 in artifact.files.items():
        if file_sha256(artifact.path / name) != sha256:
            raise StoreError(
                f"{artifact.path / name} was changed after it was made; delete the folder and make it again"
            )


def find(folder: Path, id: str) -> Artifact | None:
    """The artifact in ``folder`` if it is finished, whole and has this id; None otherwise (it is then to be made)."""
    try:
        artifact = open_artifact(folder)
    except StoreError:
        return None
    return artifact if artifact.id == id else None


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes. Raises OSError as `open` does."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file or none of it: a synced sibling file, renamed over ``path``. Raises StoreError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {no_room(error)}") from error


def read_lines(path: Path, model: type[Line], *, otherwise: str) -> tuple[list[Line], int]:
    """The lines of a file to which lines are added, none where it is not there, and how many of its bytes they are.

    A torn last line is no part of them. Raises StoreError where the file cannot be read, or a line is no ``model``:
    ``otherwise`` says what it then is not, and the way out.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    whole = data.rfind(b"\n") + 1
    lines: list[Line] = []
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            lines.append(model.model_validate_json(line))
        except ValidationError as error:
            raise StoreError(f"{path}, line {number}, {otherwise}") from error
    return lines, whole


def open_lines(path: Path) -> int:
    """A file's descriptor for `add_lines`; the file is made where it is not there. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)


def add_lines(file: int, data: bytes, *, whole: int) -> None:
    """Put ``data`` behind the ``whole`` bytes that are whole lines, and onto the disk. Raises OSError."""
    os.ftruncate(file, whole)  # what a kill or an attempt that failed left of a line
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, "the disk is full")
    os.fsync(file)


def under_way(folder: Path) -> tuple[Path, str] | None:
    """Where an artifact at ``folder`` is being made, or was cut, and its id; None where nothing of it is there."""
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        id = json.loads((partial / _MAKING).read_bytes())["id"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (partial, id) if isinstance(id, str) else None


@dataclass(frozen=True)
class Making:
    """An artifact under way: write its files into ``path``. ``resumed``: a cut attempt at the same id left files."""

    folder: Path
    path: Path
    id: str
    resumed: bool


@contextmanager
def making(
    folder: Path, *, kind: str, parents: Mapping[str, str], config: Mapping[str, Any], version: int
) -> Iterator[Making]:
    """Make an artifact at ``folder``; it appears there, with its manifest, only if the block ends without an exception.

    The block writes into ``Making.path``, a sibling ``.<name>.partial`` that is kept on failure, so that a cut stage
    goes on inside it; what a different id had left there is cleared first. A finished artifact already at ``folder`` is
    replaced at the end.
    Raises StoreError if another process is making it, if ``folder`` exists and is not an artifact, or if nothing can be
    written there.
    """
    id = artifact_id(kind, parents, config, version)
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise StoreError(f"{folder} is in the way: it is not an artifact of vez; move it elsewhere")
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise StoreError(f"{folder} is being made by another process; wait for it or stop it") from error
    except OSError as error:
        raise StoreError(f"cannot write into {folder.parent}: {no_room(error)}") from error
    try:
        partial = folder.with_name(f".{folder.name}.partial")
        resumed = _prepare(partial, id)
        yield Making(folder, partial, id, resumed)
        _finish(partial, folder, {"id": id, "kind": kind, "parents": parents, "config": config, "version": version})
    finally:
        lock.release()


def _prepare(partial: Path, id: str) -> bool:
    """Ready the partial folder for this id; True if a cut attempt at the same id is in it."""
    marker = partial / _MAKING
    try:
        if json.loads(marker.read_bytes()) == {"id": id}:
            return True
    except (OSError, ValueError):
        pass  # absent or torn: whose files these are is unknown, so they are cleared
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
    except OSError as error:
        raise StoreError(f"cannot write {partial}: {no_room(error)}") from error
    write_atomic(marker, json.dumps({"id": id}).encode())
    return False


def _finish(partial: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Hash the files, write the manifest, and put the folder under its name (instead of what was there)."""
    for torn in partial.rglob(".*.tmp"):  # what a killed write_atomic left
        torn.unlink()
    names = sorted(p.relative_to(partial).as_posix() for p in partial.rglob("*") if p.is_file())
    manifest["files"] = {name: file_sha256(partial / name) for name in names if name not in (MANIFEST, _MAKING)}
    text = json.dumps(_canonical(manifest), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(partial / MANIFEST, text.encode())
    old = folder.with_name(f".{folder.name}.old")
    if old.exists():
        shutil.rmtree(old)
    if folder.exists():
        os.rename(folder, old)
    os.rename(partial, folder)
    (folder / _MAKING).unlink()  # last: until the rename, the marker is what a killed attempt is resumed by
    if old.exists():
        shutil.rmtree(old)
