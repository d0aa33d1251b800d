"""What a folder has been offered, so that a collection which was cut goes on: .collected.jsonl beside provenance.jsonl.

One JSON object a line, appended and synced, the last line for a key counts:

    {"source": "commons:…", "key": "https://…", "record": {"file": "a.jpg", "sha256": "…", …}}   about to be taken
    {"source": "commons:…", "key": "https://…", "refused": "it is damaged: …", "again": false}   refused, and why

A picture is taken in three steps: its line here, the file, its line in provenance.jsonl. Whoever opens the folder next
finishes or undoes what was cut between them. ``again``: the reason may pass (a server that was down, a licence that is
allowed today), so the key is looked at anew; otherwise it is passed over.
"""

import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from vez.collect.names import stem_of
from vez.errors import StoreError
from vez.images import provenance
from vez.images.provenance import Provenance
from vez.store import file_sha256, write_atomic

FILE: Final = ".collected.jsonl"
_SIDECARS: Final = (provenance.FILE, "boxes.toml")
_TORN: Final = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # what a killed write_atomic leaves


class Journal:
    """The state of one folder and one source. One process at a time may hold it (the caller locks the folder)."""

    def __init__(self, folder: Path, source: str) -> None:
        """Read what is there and mend what was cut. Raises StoreError, and DataError for a wrong provenance.jsonl."""
        self._folder, self._source = folder, source
        self._path = folder / FILE
        self._rows: dict[str, dict[str, Any]] = {}  # key → its last line, for this source
        self._stems: set[str] = set()
        last = self._read()
        _mend_provenance(folder / provenance.FILE, last)
        records = provenance.read(folder)
        if last is not None and "record" in last:
            self._finish(last, records)
        self.originals = {r.original_sha256: r.file for r in reversed(records.values()) if r.original_sha256}
        """SHA-256 of the bytes of each picture, as they came or as they lie in the folder → its file."""
        self._look(records)

    @property
    def taken(self) -> int:
        """How many pictures of this source have been taken, now or earlier."""
        return sum("record" in row for row in self._rows.values())

    def is_settled(self, key: str) -> bool:
        """Whether a key was taken, or refused for good."""
        row = self._rows.get(key)
        return row is not None and not row.get("again", False)

    def is_taken(self, key: str) -> bool:
        """Whether a key was taken."""
        return "record" in self._rows.get(key, {})

    @property
    def stems(self) -> set[str]:
        """Stems of names that are used in the folder, as `names.stem_of` gives them."""
        return self._stems

    def refuse(self, key: str, reason: str, *, again: bool) -> None:
        """Remember why a picture was not taken; nothing is written where that is known already."""
        row = {"source": self._source, "key": key, "refused": reason, "again": again}
        if self._rows.get(key) != row:
            _append(self._path, _journal_line(row))
            self._rows[key] = row

    def take(self, key: str, record: Provenance, data: bytes) -> None:
        """Write a picture and its record, durably: a kill at any point loses and doubles nothing. Raises StoreError."""
        row = {"source": self._source, "key": key, "record": _filled(record)}
        _append(self._path, _journal_line(row))
        write_atomic(self._folder / record.file, data)
        _append(self._folder / provenance.FILE, _record_line(_filled(record)))
        self._rows[key] = row
        self._stems.add(stem_of(record.file))
        for sha256 in (record.original_sha256, record.sha256):
            self.originals.setdefault(sha256, record.file)

    def _read(self) -> dict[str, Any] | None:
        """Cut a torn last line, keep the last line of each key of this source; returns the file's last line."""
        try:
            data = self._path.read_bytes() if self._path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                os.truncate(self._path, len(whole))
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error.strerror}") from error
        row = None
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                source, key = row["source"], row["key"]
                if not isinstance(key, str) or not isinstance(row.get("record", {}), dict):
                    raise TypeError("its fields are of another kind")
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise StoreError(f"{self._path}, line {number} is damaged ({error}); delete that line") from error
            if source == self._source:
                self._rows[key] = row
        return row

    def _finish(self, row: dict[str, Any], records: dict[str, Provenance]) -> None:
        """The last picture may have been cut: give it its record if it is there, else forget that it was begun."""
        try:
            record = Provenance(**row["record"])
        except TypeError as error:
            raise StoreError(f"the last line of {self._path} is damaged ({error}); delete that line") from error
        path = self._folder / Path(record.file).name
        known = records.get(record.file)
        if known is not None and known.sha256 == record.sha256:
            return
        if path.is_file() and file_sha256(path) == record.sha256:
            _append(self._folder / provenance.FILE, _record_line(_filled(record)))
            records[record.file] = record
            return
        undone = {"source": row["source"], "key": row["key"], "refused": "cut before it was written", "again": True}
        _append(self._path, _journal_line(undone))
        if row["source"] == self._source:
            self._rows[row["key"]] = undone

    def _look(self, records: dict[str, Provenance]) -> None:
        """What else lies in the folder: names in use, bytes of pictures without a record; torn files are cleared."""
        try:
            for path in sorted(self._folder.iterdir()):
                if _TORN.fullmatch(path.name):
                    path.unlink()
                    continue
                if path.name.startswith(".") or not path.is_file():
                    continue
                self._stems.add(stem_of(path.name))
                record = records.get(path.name)
                if path.name not in _SIDECARS:
                    sha256 = record.sha256 if record and record.sha256 else file_sha256(path)
                    self.originals.setdefault(sha256, path.name)
        except OSError as error:
            raise StoreError(f"cannot read {self._folder}: {error.strerror}") from error


def _filled(record: Provenance) -> dict[str, str]:
    return {key: value for key, value in asdict(record).items() if value}


def _journal_line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()  # in ASCII: a key may be a file name that is no Unicode


def _record_line(record: dict[str, str]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _append(path: Path, line: bytes) -> None:
    """Add one line and sync it; a line that cannot be written whole is taken back. Raises StoreError."""
    try:
        with open(path, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                written = file.write(line)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise
            if written != len(line):
                file.truncate(before)
                raise OSError(28, "the disk is full")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _mend_provenance(path: Path, last: dict[str, Any] | None) -> None:
    """Take off a record that a kill tore, give a last line that a person wrote its line end; touch nothing else."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    start = data.rfind(b"\n") + 1
    tail = data[start:]
    if not tail.strip():
        return
    try:
        if last is not None and "record" in last and _record_line(last["record"]).startswith(tail):
            os.truncate(path, start)
        else:
            with open(path, "ab") as file:
                file.write(b"\n")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
