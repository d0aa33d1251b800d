"""A judge's sitting: which pair is shown, under names that mean nothing, and what happens to an answer."""

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vez.config import Project
from vez.judging import pictures
from vez.judging.material import Material
from vez.judging.plan import Pair, Question, plan
from vez.judging.votes import Answer, Ballots


@dataclass
class Shown:
    """The pair on the page. ``handle`` stands for this showing of it alone: an answer sent twice counts once."""

    pair: Pair
    question: Question
    handle: str
    since: float
    left: str
    right: str
    files: Mapping[str, bytes]


@dataclass
class Session:
    """One judge at one page. Every method may be called from any thread.

    ``passes``: for each question the pairs to judge, in order.
    """

    material: Material
    ballots: Ballots
    passes: Mapping[Question, tuple[Pair, ...]]
    words: Mapping[Question, str]
    references: Mapping[str, bytes] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _shown: Shown | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # where the judge stopped: the last question that has an answer
        begun = [question for question, (answered, _) in self.progress().items() if answered]
        self._question: Question = begun[-1] if begun else next(iter(self.passes))

    def state(self) -> dict[str, Any]:
        """What the page shows now, as JSON values. Raises DataError where a picture cannot be read."""
        with self._lock:
            return self._state()

    def vote(self, handle: str, answer: Answer, seconds: float) -> dict[str, Any] | None:
        """Count an answer to the pair on the page; the next state, or None where that pair is on the page no more.

        ``seconds`` is what the page measured; it is believed as far as the clock here allows. Raises StoreError where
        the answer could not be kept.
        """
        with self._lock:
            shown = self._shown
            if shown is None or not secrets.compare_digest(shown.handle, handle):
                return None
            took = min(max(0.0, seconds), self.clock() - shown.since)
            self.ballots.vote(shown.pair, answer, question=shown.question, seconds=took, material=self.material)
            self._shown = None
            return self._state()

    def undo(self, handle: str) -> dict[str, Any] | None:
        """Take back the last answer to this question; None where ``handle`` is not what the page shows."""
        with self._lock:
            if not secrets.compare_digest(self._handle(), handle):
                return None
            last = self._answered()
            if last:
                self.ballots.undo(last[-1])
                self._shown = None
            return self._state()

    def go_on(self, handle: str) -> dict[str, Any] | None:
        """Turn to the next question, once this one is answered; None where ``handle`` is not what the page shows."""
        with self._lock:
            if not secrets.compare_digest(self._handle(), handle):
                return None
            following = self._following()
            if self._next() is None and following is not None:
                self._question, self._shown = following, None
            return self._state()

    def picture(self, name: str) -> bytes | None:
        """A picture on the page by its name there; None for any other name."""
        with self._lock:
            if self._shown is not None and name in self._shown.files:
                return self._shown.files[name]
            return self.references.get(name)

    def progress(self) -> dict[Question, tuple[int, int]]:
        """Question → (answered, asked)."""
        counted = self.ballots.counted
        return {q: (sum(pair.id in counted for pair in of), len(of)) for q, of in self.passes.items()}

    def _state(self) -> dict[str, Any]:
        pair = self._next()
        answered, asked = self.progress()[self._question]
        told: dict[str, Any] = {
            "question": self.words[self._question],
            "part": [list(self.passes).index(self._question) + 1, len(self.passes)],
            "answered": answered,
            "asked": asked,
            "undo": bool(self._answered()),
        }
        if pair is None:
            following = self._following()
            return told | {"handle": self._handle(), "done": True, "next": following and self.words[following]}
        shown = self._show(pair)
        seen = list(self.references) if self._question == "concept" else []
        return told | {
            "handle": shown.handle,
            "done": False,
            "prompt": self.material.texts[pair.left.prompt],
            "left": shown.left,
            "right": shown.right,
            "references": seen,
        }

    def _show(self, pair: Pair) -> Shown:
        """The pair under fresh names; under the same ones while it stays on the page, so that it can be reloaded."""
        if self._shown is not None:
            return self._shown
        left, right = pictures.pair(self.material.files[pair.left], self.material.files[pair.right])
        names = secrets.token_hex(16), secrets.token_hex(16)
        files = dict(zip(names, (left, right), strict=True))
        self._shown = Shown(pair, self._question, secrets.token_hex(16), self.clock(), *names, files)
        return self._shown

    def _handle(self) -> str:
        return self._shown.handle if self._shown else f"done-{self._question}"

    def _next(self) -> Pair | None:
        counted = self.ballots.counted
        return next((pair for pair in self.passes[self._question] if pair.id not in counted), None)

    def _answered(self) -> list[str]:
        """Ids of the pairs of this question that have an answer, in the order they were given."""
        asked = {pair.id for pair in self.passes[self._question]}
        return [pair for pair in self.ballots.counted if pair in asked]

    def _following(self) -> Question | None:
        counted = self.ballots.counted
        rest = list(self.passes)[list(self.passes).index(self._question) + 1 :]
        return next((q for q in rest if any(pair.id not in counted for pair in self.passes[q])), None)


def begin(
    material: Material, ballots: Ballots, *, project: Project, votes: int, references: Sequence[Path] = ()
) -> Session:
    """A sitting of ``votes`` pairs for each of the two questions, which are asked one after the other.

    Raises ConfigError where there is nothing to compare, DataError where a real picture cannot be read.
    """
    words: dict[Question, str] = {
        "concept": f"Which one shows the {project.noun} more faithfully?",
        "text": "Which one follows the text better?",
    }
    return Session(
        material=material,
        ballots=ballots,
        passes={question: plan(material, judge=ballots.judge, question=question, votes=votes) for question in words},
        words=words,
        references={secrets.token_hex(16): pictures.reference(path) for path in references},
    )
