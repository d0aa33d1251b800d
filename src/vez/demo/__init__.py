"""The embedded demo: a small project and the tiny base it trains on, both package data."""

import hashlib
import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from vez.errors import StoreError
from vez.store import file_sha256, write_atomic

# What was copied, so that a file the person changed is told from one that an older vez wrote.
_COPIED = ".vez/demo.json"


def copy_project(into: Path) -> list[Path]:
    """Copy the demo project into a folder; returns the files left alone because a person changed them.

    A file that is there and differs is overwritten only if it is exactly what an earlier copy put there. Raises
    StoreError where the package lacks its data or the folder cannot be written.
    """
    source = files("vez.demo") / "project"
    if not source.is_dir():
        raise StoreError("the demo project is missing from the installed package; install vez again")
    record = into / _COPIED
    try:
        copied: dict[str, str] = json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
        copied = {}  # first copy, or a torn record: whatever differs then counts as the person's
    kept: list[Path] = []
    for name, item in _walk(source, ""):
        target, data = into / name, item.read_bytes()
        if target.exists() and file_sha256(target) != copied.get(name) and target.read_bytes() != data:
            kept.append(target)
            continue
        copied[name] = hashlib.sha256(data).hexdigest()
        if not target.exists() or target.read_bytes() != data:
            write_atomic(target, data)
    write_atomic(record, json.dumps(copied, indent=1, sort_keys=True).encode())
    return kept


def damaged_weights() -> list[str]:
    """The demo's weight files that are missing or are not the bytes that were shipped; empty when all is well.

    Compared with SHA256SUMS beside them (lines of "<sha256>  <relative path>", as `sha256sum -c` reads them).
    """
    root = files("vez.demo")
    sums = root / "SHA256SUMS"
    if not sums.is_file():
        return ["SHA256SUMS"]
    damaged = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        item = root.joinpath(*name.split("/"))
        if not item.is_file() or hashlib.sha256(item.read_bytes()).hexdigest() != digest:
            damaged.append(name)
    return damaged


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    """(relative posix path, file) of every file under a package folder, in order of name."""
    found: list[tuple[str, Traversable]] = []
    for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{item.name}"
        if item.is_dir():
            found += _walk(item, f"{name}/")
        elif not item.name.endswith(".pyc"):
            found.append((name, item))
    return found
