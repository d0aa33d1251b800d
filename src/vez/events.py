"""What a long stage yields, and the append-only file (events.jsonl) that remembers it.

One event is one line of JSON: ``{"event": "step", "run": "v1-0", "step": 12, …}``. Numbers that JSON cannot say
(NaN, ±inf) are written as the strings "nan", "inf", "-inf". Paths are written with forward slashes.
"""

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from vez.errors import StoreError, no_room


@dataclass(frozen=True)
class Stage:
    """A part of the work begins. ``total`` is how many items it has (None: unknown)."""

    name: str
    total: int | None = None
    detail: str = ""


@dataclass(frozen=True)
class Item:
    """One item of the part under way is finished: the ``done``-th, of ``of`` in all (None: unknown)."""

    name: str
    done: int
    of: int | None = None


@dataclass(frozen=True)
class Step:
    """One optimizer step of one run. ``step`` counts from 1 to ``of``; ``seconds`` is the wall time of the step.

    ``loss`` is the concept's, and of class pictures. ``drift`` is how far what is said without the trigger is from the
    base, as a mean square; it is not in the loss, and None where nothing is preserved.
    """

    run: str
    step: int
    of: int
    loss: float
    lr_unet: float
    lr_text: float
    grad_norm: float
    seconds: float
    drift: float | None = None


@dataclass(frozen=True)
class Validated:
    """Fixed-noise loss; ``bands`` are the losses per band of timesteps, low noise first.

    ``split`` says on which pictures: "held_out", or "train" (as many of those trained on, for the gap between the two).
    """

    run: str
    step: int
    loss: float
    bands: tuple[float, ...] = ()
    split: str = "held_out"


@dataclass(frozen=True)
class Saved:
    """A LoRA file was written and read back.

    ``norm`` is ‖ΔW‖ of all it adds to its base, ``change`` the largest ‖ΔW‖/‖W‖ of a module; None: not measured.
    """

    run: str
    step: int
    path: Path
    norm: float | None = None
    change: float | None = None


@dataclass(frozen=True)
class Previewed:
    """A picture of what a run has learned by a step; ``prompt`` is its text, ``path`` is relative to the run."""

    run: str
    step: int
    prompt: str
    path: Path


@dataclass(frozen=True)
class Sampled:
    """One image was drawn, in ``seconds`` of its batch's wall time, or (0) found already drawn."""

    arm: str
    prompt: str
    seed: int
    path: Path
    seconds: float = 0.0


@dataclass(frozen=True)
class Note:
    """A sentence for the person; in a run's log with the ``step`` it was said at."""

    text: str
    step: int = 0


@dataclass(frozen=True)
class Done:
    """The stage is finished: always the last event. ``artifact_path`` is the artifact's folder, ``id`` its full id."""

    artifact_path: Path
    id: str


Event = Stage | Item | Step | Validated | Saved | Previewed | Sampled | Note | Done

_TYPES: tuple[type[Event], ...] = (Stage, Item, Step, Validated, Saved, Previewed, Sampled, Note, Done)
_KINDS = {kind.__name__.lower(): kind for kind in _TYPES}
# What a field of an event may be in JSON, by its annotation; an int where a float is meant is fine.
_SHAPES: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    Path: (str,),
    int | None: (int, type(None)),
    float | None: (int, float, type(None)),
}


def as_json(event: Event) -> dict[str, Any]:
    """The event as a flat mapping of strict JSON values; `from_json` is its inverse."""
    return {"event": type(event).__name__.lower()} | {f.name: _plain(getattr(event, f.name)) for f in fields(event)}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json(row: Mapping[str, Any]) -> Event:
    """The event that `as_json` wrote. Raises StoreError where the row is not one."""
    kind = _KINDS.get(str(row.get("event")))
    if kind is None:
        raise StoreError(f"no such event: {row.get('event')!r}; known are {', '.join(_KINDS)}")
    values = {f.name: _typed(row[f.name], f.type, f.name) for f in fields(kind) if f.name in row}
    unknown = set(row) - {"event"} - set(values)
    if unknown:
        raise StoreError(f"an event {row['event']!r} has no field {sorted(unknown)[0]!r}")
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise StoreError(f"an event {row['event']!r} is incomplete: {error}") from error


def _typed(value: Any, annotation: Any, name: str) -> Any:
    if annotation == tuple[float, ...] and isinstance(value, list):
        return tuple(_typed(v, float, name) for v in value)
    if annotation is float and value in ("nan", "inf", "-inf"):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, _SHAPES.get(annotation, ())):
        raise StoreError(f"an event's field {name!r} cannot be {value!r}")
    # cast only where JSON has no such type; `annotation` is one of the keys above
    return annotation(value) if annotation in (float, Path) else value


class EventLog:
    """The append-only events.jsonl of one stage: whole lines only, no fsync.

    Opening cuts off a torn last line (the writer was killed inside it), so what follows starts on a line of its own.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path`` for appending, making it and its folder where absent. Raises StoreError if it cannot."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._cut_torn_line()
            # Unbuffered: one write() per line, so a reader or a kill sees whole lines.
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise StoreError(f"cannot write {path}: {no_room(error)}") from error

    def _cut_torn_line(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            keep = 0
            while end > 0:  # walk back in blocks to the last newline
                start = max(0, end - 65536)
                file.seek(start)
                newline = file.read(end - start).rfind(b"\n")
                if newline >= 0:
                    keep = start + newline + 1
                    break
                end = start
            file.truncate(keep)

    def append(self, event: Event) -> None:
        """Add one line. Raises StoreError if it cannot be written whole (a full disk); nothing of it then stays."""
        line = (json.dumps(as_json(event), ensure_ascii=False, allow_nan=False) + "\n").encode()
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
        except OSError as error:
            os.truncate(self.path, before)
            raise StoreError(f"cannot write {self.path}: {no_room(error)}") from error
        if written != len(line):
            os.truncate(self.path, before)
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a part was written: no more went in
            raise StoreError(f"cannot write {self.path}: {no_room(full)}")

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def read(path: Path) -> Iterator[Event]:
    """The events of a file in order; a torn last line is left out, since its writer may still be at it.

    Raises StoreError for an absent file and for a whole line that is not an event (naming the line).
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; the open alone is guarded
    except OSError as error:
        raise StoreError(f"cannot read the events {path}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise StoreError(f"{path}, line {number}, is not JSON; delete the line and read again") from error
            if not isinstance(row, dict):
                raise StoreError(f"{path}, line {number}, is not an event; delete the line and read again")
            yield from_json(row)
