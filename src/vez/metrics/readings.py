"""Which pictures of which LoRA files were read so far: looks.jsonl in the study's folder, to which lines are added.

A line is a reading of the primary comparisons: {"role", "planned", "read": {LoRA file's SHA-256: SHA-256 of the
pictures and of who looked}}. It is on disk before a number of that reading is, so a kill loses no look; a torn last
line was never read from and is dropped. What was read of a LoRA once more is the same look. Anything else, be it fewer
pictures or another encoder on the same ones, is another answer to the same question, and so another look.
"""

import hashlib
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from vez.errors import StoreError, no_room
from vez.events import Note
from vez.metrics.looks import MOST, Look, says, says_of_confirmation
from vez.metrics.summary import Values
from vez.store import add_lines, canonical_json, file_sha256, open_lines, read_lines, write_atomic
from vez.sweep import explored

FILE: Final = "looks.jsonl"
"""The ledger's name in the study's folder, and that of its copy beside the scores."""

Role = Literal["choice", "confirmation"]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Read = Mapping[str, str]
"""LoRA file's hash → hash of what was read of it."""

Files = Mapping[tuple[str, str, int], Path]
"""(arm, prompt, seed) → the picture."""


class Reading(BaseModel):
    """A line of the ledger: ``role`` is what the pictures were for, ``planned`` the looks that vez.toml then said."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Role
    planned: int = Field(ge=1, le=MOST)
    read: dict[Hash, Hash] = Field(min_length=1)


@dataclass(frozen=True)
class Ledger:
    """The ledger at ``path`` for a study that plans so many looks."""

    path: Path
    planned: int = 1


def read_of(tables: Iterable[Values], loras: Mapping[str, Any], files: Files, judges: Sequence[str]) -> dict[str, str]:
    """What reading these tables is, LoRA by LoRA: the hash of its pictures' bytes, by prompt and noise, and who looks.

    Args:
        tables: of each primary metric, arm → (prompt, seed) → value.
        loras: the arms that count → their records in the samples' manifest.
        files: where the pictures lie.
        judges: hashes of the encoders' weights.
    """
    cells: dict[str, set[tuple[str, str, int]]] = {}
    for table in tables:
        for arm in table.keys() & loras.keys():
            there = {(arm, *cell) for cell, value in table[arm].items() if not math.isnan(value)}
            cells.setdefault(_file_of(loras[arm]), set()).update(there)
    seen = {lora: sorted([prompt, seed, file_sha256(files[arm, prompt, seed])] for arm, prompt, seed in of)
            for lora, of in cells.items() if of}  # fmt: skip
    return {
        lora: hashlib.sha256(canonical_json({"pictures": of, "judges": list(judges)}).encode()).hexdigest()
        for lora, of in sorted(seen.items())
    }


def _file_of(record: Any) -> str:
    """The hash of an arm's LoRA file; an older manifest holds it alone."""
    found = record.get("lora") if isinstance(record, Mapping) else record
    text = str(found)
    # A manifest is somebody's file: what is no hash still names this LoRA and no other.
    return text if re.fullmatch("[0-9a-f]{64}", text) else hashlib.sha256(text.encode()).hexdigest()


def look_of(readings: Iterable[Reading], reading: Reading) -> Look:
    """Which look a reading is, of how many: that of the LoRA for which the least error is left.

    A LoRA's looks are counted over all readings that it was in, with whatever others; its plan is that of the first.
    """
    before = [of for of in readings if of.role == reading.role]
    found = []
    for lora, what in reading.read.items():
        of_it = [of for of in before if lora in of.read] or [reading]
        seen = list(dict.fromkeys([*(of.read[lora] for of in of_it if lora in of.read), what]))
        found.append(Look(seen.index(what) + 1, of_it[0].planned))
    return min(found, key=lambda look: (look.alpha, -look.look, look.of))


def take(ledger: Ledger, role: Role, read: Read) -> Look:
    """Write down that this is read, and say which look it is. Raises StoreError for a ledger that is damaged, or where
    nothing can be written."""
    readings, whole = load(ledger.path)
    reading = Reading(role=role, planned=ledger.planned, read=dict(read))
    known = {(of.role, *pair) for of in readings for pair in of.read.items()}
    if not all((role, *pair) in known for pair in reading.read.items()):
        _append(ledger.path, [reading], whole)
    return look_of(readings, reading)


def mend(ledger: Ledger, copy: Path) -> bool:
    """Write a ledger that is gone again from the copy beside the last scores; whether that was done.

    Raises StoreError where either is damaged, or the ledger lacks what the copy has: then somebody took lines out.
    """
    readings, whole = load(ledger.path)
    kept, _ = load(copy)
    if readings[: len(kept)] == kept:
        return False
    if readings:
        raise StoreError(
            f"{ledger.path} lacks looks that the last scores know of; put it back as it was, or delete it: then it is "
            f"written again from {copy}"
        )
    _append(ledger.path, kept, whole)
    return True


def load(path: Path) -> tuple[list[Reading], int]:
    """The readings of a ledger, none where there is none, and how many of its bytes they are."""
    return read_lines(
        path,
        Reading,
        otherwise="is not a look that vez wrote; put the file back as it was: what it counted is not counted anew",
    )


def count(
    ledger: Ledger | None,
    arms: Mapping[str, Mapping[str, Any]],
    primary: Sequence[Values],
    files: Files,
    *,
    confirming: Collection[str],
    judges: Sequence[str],
) -> dict[Role, Look]:
    """Which looks these are, at the LoRAs of the choice and of the confirmation; they are counted before they are told.

    Args:
        ledger: None counts nothing.
        arms: "samples" and, where there is one, "confirm" → the arms of its manifest.
        primary: the tables of the primary metrics, arm → (prompt, seed) → value.
        files: where the pictures lie.
        confirming: the prompts that confirm.
        judges: hashes of the weights of who looks.
    Returns:
        The look of each role that something primary was measured for.
    Raises:
        StoreError: the ledger is damaged, or nothing can be written.
    """
    found: dict[Role, Look] = {}
    if ledger is None:
        return found
    # A confirmation is asked once: to draw it again until it confirms is what it is there to prevent.
    sources: tuple[tuple[Role, str, Ledger], ...] = (
        ("choice", "samples", ledger),
        ("confirmation", "confirm", Ledger(ledger.path)),
    )
    for role, source, asked in sources:
        records = arms.get(source, {})
        aside = explored(records) if role == "choice" else frozenset()
        loras = {arm: of for arm, of in records.items() if of is not None and arm not in aside}
        tables = [_within(table, confirming, inside=role == "confirmation") for table in primary]
        read = read_of(tables, loras, files, judges)
        if read:
            found[role] = take(asked, role, read)
    return found


def notes(looks: Mapping[Role, Look], ledger: Ledger | None) -> Iterator[Note]:
    """What whoever scores has to know of these looks."""
    for role, look in looks.items():
        if role == "choice":
            yield from map(Note, says(look, asked=None if ledger is None else ledger.planned))
        else:
            yield from map(Note, says_of_confirmation(look))


def counted(looks: Mapping[Role, Look], ledger: Ledger | None) -> dict[str, Any]:
    """The looks as summary.json holds them under ``looks``; nothing where none were counted."""
    if ledger is None or "choice" not in looks:
        return {}
    later = looks.get("confirmation")
    told = _told(looks["choice"], ledger.planned)
    return {"looks": told | {"confirmation": None if later is None else _told(later, 1)}}


def keep(ledger: Ledger | None, folder: Path) -> None:
    """Put a copy of the ledger beside the scores, for the case that it is lost."""
    if ledger is not None and ledger.path.is_file():
        write_atomic(folder / FILE, ledger.path.read_bytes())


def _told(look: Look, asked: int) -> dict[str, Any]:
    row = {"look": look.look, "of": look.of, "alpha": look.alpha, "planned": look.planned}
    return row | {"asked": asked if asked != look.of else None}


def _within(table: Values, prompts: Collection[str], *, inside: bool) -> Values:
    return {arm: {cell: v for cell, v in of.items() if (cell[0] in prompts) is inside} for arm, of in table.items()}


def _append(path: Path, readings: Sequence[Reading], whole: int) -> None:
    data = "".join(of.model_dump_json() + "\n" for of in readings).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_lines(path)
        try:
            add_lines(file, data, whole=whole)
        finally:
            os.close(file)
    except OSError as error:
        raise StoreError(f"the look could not be kept in {path}: {no_room(error)}") from error
