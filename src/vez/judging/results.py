"""All votes of a study → what they say, as data, as results.json, and in words."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from vez.judging import material
from vez.judging.analysis import Verdicts, analyse
from vez.judging.judges import HASTY, Judge, examine
from vez.judging.material import Material
from vez.judging.plan import Question
from vez.judging.votes import FOLDER, Vote, read
from vez.store import write_atomic

FILE: Final = "results.json"
VERSION: Final = 1
"""Of the layout of results.json."""
QUESTIONS: Final[tuple[Question, ...]] = ("concept", "text")


@dataclass(frozen=True)
class Results:
    """What people said of a study's pictures.

    ``questions``: only those that were judged. ``trusted``: the same without the judges that are flagged; empty where
    none is, or all are. ``outdated``: votes on pictures that have been drawn anew since, which are left out.
    """

    study: str
    samples: str
    base: str | None
    questions: tuple[Verdicts, ...]
    trusted: tuple[Verdicts, ...]
    judges: tuple[Judge, ...]
    outdated: int


def gather(study_dir: Path, arms: Sequence[str] = ()) -> Results | None:
    """Read and analyse the votes on a study; None where there is none. Nothing is written.

    ``arms``: only votes between these, and the one without a LoRA, are compared; what the judges are like is told by
    all of theirs. The same votes give the same numbers. Raises StoreError where votes, samples or scores are damaged,
    ConfigError for an arm that was not drawn.
    """
    folder = study_dir / FOLDER
    if not any(folder.glob("*.jsonl")):
        return None
    votes = read(folder)
    judged = material.read(study_dir)
    compared = set(judged.only(tuple(arms)).arms)
    valid = [vote for vote in votes if _is_of(vote, judged)]
    slow = [vote for vote in valid if vote.seconds >= HASTY]
    names = dict.fromkeys(vote.judge for vote in slow)
    judges = [
        examine(
            [vote for vote in slow if vote.judge == name],
            hasty=sum(vote.judge == name for vote in valid) - sum(vote.judge == name for vote in slow),
        )
        for name in names
    ]
    flagged = {judge.judge for judge in judges if judge.flags}
    counted = [vote for vote in slow if {vote.left.arm, vote.right.arm} <= compared]
    trusted = [vote for vote in counted if vote.judge not in flagged]
    return Results(
        study=study_dir.name,
        samples=judged.samples,
        base=judged.base,
        questions=_verdicts(counted, judged, study_dir),
        trusted=_verdicts(trusted, judged, study_dir) if flagged and trusted else (),
        judges=tuple(judges),
        outdated=len(votes) - len(valid),
    )


def write(results: Results, study_dir: Path) -> Path:
    """Write studies/<name>/judging/results.json; returns its path. Raises StoreError where it cannot."""
    path = study_dir / FOLDER / FILE
    text = json.dumps({"version": VERSION, **_rounded(asdict(results))}, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())
    return path


def _is_of(vote: Vote, judged: Material) -> bool:
    """Whether both pictures of a vote are still the ones that lie there."""
    return all(
        judged.sha256.get(material.Cell(side.arm, vote.prompt, side.seed)) == side.sha256
        for side in (vote.left, vote.right)
    )


def _verdicts(votes: Sequence[Vote], judged: Material, study_dir: Path) -> tuple[Verdicts, ...]:
    rows, better = material.scores(study_dir, judged.samples)
    found = (
        analyse(votes, question, arms=judged.arms, base=judged.base, scores=rows, better_high=better)
        for question in QUESTIONS
    )
    return tuple(verdicts for verdicts in found if verdicts is not None)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value
