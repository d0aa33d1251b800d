"""What every checkpoint is asked: which pictures, beside which texts. Knows no model."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vez.config import Project
from vez.dataset import Dataset, Row
from vez.errors import LoraFileError
from vez.metrics.probed import MOST, Asked, Split
from vez.store import canonical_json, file_sha256
from vez.sweep import Arm

Key = tuple[Split, str, Asked]
"""Split, picture, text: by which an arm's losses are told apart."""


@dataclass(frozen=True)
class Question:
    """One picture beside one text, its row's caption; ``asked`` says which text that is."""

    row: Row
    split: Split
    asked: Asked

    @property
    def key(self) -> Key:
        """What an arm's losses are told apart by."""
        return self.split, self.row.sha256, self.asked

    @property
    def id(self) -> str:
        """What its losses depend on, besides base and LoRA."""
        row = self.row
        of = [row.sha256, row.width, row.height, row.box, row.caption]
        return hashlib.sha256(canonical_json(of).encode()).hexdigest()


@dataclass(frozen=True)
class Subject:
    """An arm, the hash of its file, and what it is asked; questions of one picture stand together."""

    arm: Arm
    sha256: str
    questions: tuple[Question, ...]


def called(text: str, trigger: str, words: str, *, noun: str = "") -> str | None:
    """The text with ``words`` in the trigger's place, and in that of a noun after it; None where it has no trigger."""
    pattern = r"\s+".join(map(re.escape, trigger.split()))
    if noun:
        pattern += r"(?:\s+" + r"\s+".join(map(re.escape, noun.split())) + ")?"
    found, count = re.subn(rf"(?<!\w){pattern}(?!\w)", lambda _: words, text, flags=re.IGNORECASE)
    return found if count else None


def subject_of(
    arm: Arm, own: Dataset, datasets: Mapping[str, Dataset], drawn: Sequence[Row], project: Project, wrong: str
) -> Subject:
    """What an arm is asked: ``own`` is what it was trained on, ``drawn`` are the class pictures.

    A dataset that holds nothing out is asked of what the others of the study hold out and it does not train on.
    Raises LoraFileError where the arm's file cannot be read.
    """
    trained = {mark for row in own.train for mark in (row.sha256, row.source_sha256)}
    elsewhere = [row for of in datasets.values() for row in of.held_out]
    fair = [row for row in elsewhere if trained.isdisjoint((row.sha256, row.source_sha256))]
    held_out = spread(own.held_out or fair)
    seen = spread(own.train, len(held_out) or MOST // 2)
    questions = [
        *(question for row in held_out for question in _of_held_out(row, project, wrong)),
        *(Question(row, "train", "caption") for row in seen),
        *(Question(row, "class", "caption") for row in drawn),
    ]
    return Subject(arm, _sha256(arm), tuple(questions))


def spread(rows: Sequence[Row], most: int = MOST) -> list[Row]:
    """At most so many of the rows, spread evenly, and one of each source: a picture and its crops are one opinion."""
    each = list({row.group or row.source_sha256: row for row in reversed(rows)}.values())[::-1]
    count = min(len(each), most)
    return [each[i * len(each) // count] for i in range(count)]


def base_subject(subjects: Iterable[Subject]) -> Subject:
    """The base without a LoRA, asked all that any arm is."""
    different = {(*question.key, question.id): question for subject in subjects for question in subject.questions}
    return Subject(Arm(None), "", tuple(sorted(different.values(), key=lambda question: question.key[:2])))


def _of_held_out(row: Row, project: Project, wrong: str) -> Iterator[Question]:
    texts: dict[Asked, str | None] = {
        "caption": row.caption,
        "class": called(row.caption, project.trigger, project.describes, noun=project.noun),
        "trigger": project.trigger,
        "wrong": called(row.caption, project.trigger, wrong),
        "empty": "",
    }
    for asked, text in texts.items():
        if text is not None:
            yield Question(replace(row, caption=text), "held_out", asked)


def _sha256(arm: Arm) -> str:
    if arm.lora is None:
        return ""
    try:
        return file_sha256(arm.lora)
    except OSError as error:
        raise LoraFileError(f"cannot read the LoRA {arm.lora}: {error.strerror}; train it first") from error
