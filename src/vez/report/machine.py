"""The verdict and the tables for programs: one JSON object, and two CSV files. Stable keys (docs/files.md)."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from vez.report.arms import Arm, arms_of
from vez.report.build import verdict_of
from vez.report.evidence import Evidence
from vez.report.scored import Scores, Tables
from vez.store import write_atomic

VERSION: Final = 1
"""Of the layout; counts up when a key changes its meaning or goes."""

FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet would take for the start of a formula."""


def as_json(evidence: Evidence, *, weight: float = 0.5) -> str:
    """Verdict and tables as JSON; the same artifacts give the same bytes. Not measured is null or absent, never 0."""
    verdict, arms, scores = verdict_of(evidence, weight=weight), arms_of(evidence), evidence.scores
    told = asdict(verdict) | {"sentence": verdict.sentence}
    told["axes"] = None if verdict.axes is None else asdict(verdict.axes)
    found = {
        "version": VERSION,
        "study": evidence.study,
        "samples": evidence.samples and evidence.samples.id,
        "scores": scores.artifact.id if scores and scores.artifact else None,
        "verdict": told,
        "arms": {arm.name: _arm(arm) for arm in arms},
        "metrics": {name: of.model_dump() for name, of in scores.metrics.items()} if scores else {},
        "not_measured": scores.not_measured if scores else {},
        "tables": _tables(scores) if scores else None,
        "looks": scores.looks.model_dump() if scores and scores.looks else None,
        "gates": _dumped(scores.gates) if scores else {},
        "settings": _dumped(scores.settings) if scores else {},
        "selection": _dumped(scores.selection) if scores else {},
        "confirmation": _tables(scores.confirmed) if scores and scores.confirmed else None,
        "controls": dict(scores.controls) if scores else {},
        "trained_controls": asdict(evidence.trained) if evidence.trained else None,
    }
    return json.dumps(found, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def write_csv(evidence: Evidence, folder: Path) -> tuple[Path, Path]:
    """Write pictures.csv (a number per picture and metric) and arms.csv (a line per arm and metric) into a folder."""
    scores = evidence.scores
    drawn = {(row.arm, row.prompt, row.seed): row for row in evidence.drawn}
    pictures: list[tuple[Any, ...]] = [("arm", "prompt", "seed", "metric", "value", "set", "role", "text", "file")]
    for row in scores.rows if scores else ():
        of = drawn.get((row.arm, row.prompt, row.seed))
        about = ("", "", "", "") if of is None else (of.set, of.role, of.text, of.file)
        pictures.append((row.arm, row.prompt, row.seed, row.metric, row.value, *about))
    arms: list[tuple[Any, ...]] = [ARM_COLUMNS]
    for arm in arms_of(evidence):
        for metric, score in (scores.arms.get(arm.name, {}) if scores else {}).items():
            assert scores is not None
            change = scores.against_base.get(arm.name, {}).get(metric)
            more: tuple[Any, ...] = (None,) * 6
            if change is not None:
                more = (change.diff, change.low, change.high, change.p_holm, change.p_bh, change.verdict)
            mean = (score.mean, score.low, score.high, score.n_prompts, score.n_images)
            arms.append((arm.name, arm.variant, arm.reached, arm.strength, metric, *mean, *more))
    paths = folder / "pictures.csv", folder / "arms.csv"
    for path, rows in zip(paths, (pictures, arms), strict=True):
        write_atomic(path, _csv(rows).encode("utf-8"))
    return paths


ARM_COLUMNS: Final = (
    *("arm", "variant", "steps", "strength", "metric", "mean", "low", "high", "n_prompts", "n_images"),
    *("diff", "diff_low", "diff_high", "p_holm", "p_bh", "verdict"),
)


def _csv(rows: Iterable[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        # a prompt is other people's text: a spreadsheet must not run it
        writer.writerow(["'" + cell if isinstance(cell, str) and cell.startswith(FORMULAS) else cell for cell in row])
    return text.getvalue()


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "variant": arm.variant,
        "run": arm.run.name if arm.run else None,
        "training_seed": arm.seed,
        "steps": arm.reached,
        "strength": arm.strength if arm.run else None,
        "file": arm.file,
    }


def _tables(of: Scores | Tables) -> dict[str, Any]:
    pairs: dict[str, dict[str, Any]] = {}
    for (one, other), by_metric in of.pairs.items():
        pairs.setdefault(one, {})[other] = _dumped(by_metric)
    return {"arms": _dumped(of.arms), "against_base": _dumped(of.against_base), "pairs": pairs}


def _dumped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _dumped(inner) for key, inner in value.items()}
    return value.model_dump()
