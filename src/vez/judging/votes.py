"""Votes on disk: one line each, synced before the page hears of it, never changed; an undo is a line of its own.

``studies/<name>/judging/<judge>.jsonl``. A line tells everything that the analysis needs (which arms, prompt, noise and
pictures, and on which side), so votes outlive the plan that they were asked by. What a kill or a full disk left of a
last line was never acknowledged and is dropped.
"""

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Self

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from vez.errors import ConfigError, StoreError, no_room
from vez.judging.material import Cell, Material
from vez.judging.plan import Kind, Pair, Question
from vez.store import add_lines, open_lines, read_lines

FOLDER: Final = "judging"
Answer = Literal["left", "right", "tie", "neither"]
"""neither: both are bad; a tie to the analysis, but counted."""


class Shown(BaseModel):
    """One side of a vote; ``sha256`` is of the picture's file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    arm: str
    seed: int
    sha256: str


class Vote(BaseModel):
    """A line of the file: an answer, or (``undone``) that the answer to this pair no longer counts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    pair: str
    judge: str
    question: Question
    kind: Kind
    of: str = ""
    prompt: str
    left: Shown
    right: Shown
    answer: Answer
    seconds: float = Field(ge=0, allow_inf_nan=False)
    at: str
    undone: bool = False

    @property
    def chosen(self) -> str | None:
        """The arm that was preferred; None for a tie."""
        return {"left": self.left.arm, "right": self.right.arm}.get(self.answer)


def name_of(judge: str) -> str:
    """A judge's name as it can stand in a file's name. Raises ConfigError for any other."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", judge):
        raise ConfigError(
            f"the judge {judge!r} cannot be a file's name; use up to 40 letters, digits, dashes and underscores"
        )
    return judge


class Ballots:
    """A judge's file, open for writing by this process alone."""

    def __init__(self, folder: Path, judge: str) -> None:
        """Raises StoreError where the file is damaged, cannot be written, or is open in another process."""
        self.judge = name_of(judge)
        self.path = folder / f"{judge}.jsonl"
        self._lock = FileLock(folder / f".{judge}.lock")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise StoreError(
                f"{judge} is judging in another window; close that, or take another name with --judge"
            ) from error
        except OSError as error:
            raise StoreError(f"cannot write into {folder}: {no_room(error)}") from error
        try:
            self._lines, self._size = _parse(self.path)
            self._file = open_lines(self.path)
            _sync_folder(folder)
        except OSError as error:
            self._lock.release()
            raise StoreError(f"cannot write {self.path}: {no_room(error)}") from error
        except StoreError:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._file)
        self._lock.release()

    @property
    def counted(self) -> dict[str, Vote]:
        """The votes that count, by pair, in the order they were given."""
        return counted(self._lines)

    def vote(self, pair: Pair, answer: Answer, *, question: Question, seconds: float, material: Material) -> None:
        """Count an answer; one to a pair that has one already changes nothing. Raises StoreError where it cannot."""
        if pair.id not in self.counted:
            left, right = (_shown(cell, material) for cell in (pair.left, pair.right))
            self._append(
                Vote(
                    pair=pair.id, judge=self.judge, question=question, kind=pair.kind, of=pair.of,
                    prompt=pair.left.prompt, left=left, right=right, answer=answer, seconds=round(seconds, 3),
                    at=_now(),
                )
            )  # fmt: skip

    def undo(self, pair: str) -> None:
        """Take the answer to a pair back; nothing where it has none. Raises StoreError where it cannot be written."""
        vote = self.counted.get(pair)
        if vote is not None:
            self._append(vote.model_copy(update={"undone": True, "at": _now()}))

    def _append(self, vote: Vote) -> None:
        data = (vote.model_dump_json() + "\n").encode()
        try:
            add_lines(self._file, data, whole=self._size)
        except OSError as error:
            raise StoreError(f"the vote could not be kept in {self.path}: {no_room(error)}") from error
        self._size += len(data)
        self._lines.append(vote)


def read(folder: Path) -> list[Vote]:
    """The votes of all judges that count, judge by judge. Raises StoreError where a file is damaged."""
    return [vote for path in sorted(folder.glob("*.jsonl")) for vote in counted(_parse(path)[0]).values()]


def counted(lines: Iterable[Vote]) -> dict[str, Vote]:
    """What is left of a file's lines when each undo has taken its vote away and a pair counts once."""
    votes: dict[str, Vote] = {}
    for line in lines:
        if line.undone:
            votes.pop(line.pair, None)
        else:
            votes.setdefault(line.pair, line)
    return votes


def _parse(path: Path) -> tuple[list[Vote], int]:
    """The lines of a file, and how many of its bytes they are: a torn last line is no part of them."""
    return read_lines(path, Vote, otherwise="is not a vote; mend or delete that line")


def _shown(cell: Cell, material: Material) -> Shown:
    return Shown(arm=cell.arm, seed=cell.seed, sha256=material.sha256[cell])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
