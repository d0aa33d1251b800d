"""scores/ as data: what summary.json and scores.jsonl say, every part checked. Nothing is computed here."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vez.errors import StoreError
from vez.store import Artifact


class Row(BaseModel):
    """A line of a .jsonl file or a part of summary.json; keys that a later version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


RowType = TypeVar("RowType", bound=Row)


class ScoreRow(Row):
    """One number about one picture."""

    arm: str
    prompt: str
    seed: int
    metric: str
    value: float


class NeighbourRow(Row):
    """A drawn picture and the training picture most like it, which lies in the dataset of that id."""

    file: str
    training: str
    dataset: str
    cosine: float


class Limit(Row):
    """A limit on an arm's mean, by rule."""

    limit: float
    keep: Literal["above", "below"]
    calibrated: bool = False


class Metric(Row):
    """What a metric is, and how it is judged (`vez.metrics.rules.Rule`)."""

    definition: str
    higher_is_better: bool = True
    primary: bool = False
    margin: float | None = None
    gate: Limit | None = None
    guard: bool = False


class Span(Row):
    """A mean with its interval, over ``n`` prompts."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 0


class Score(Row):
    """A mean over prompts with its interval."""

    mean: float
    n_prompts: int
    n_images: int
    low: float | None = None
    high: float | None = None


class Same(Row):
    """An equivalence test: 90 % limits of the difference against ±margin."""

    margin: float
    low: float
    high: float
    equivalent: bool = False
    not_worse: bool = False


class Difference(Row):
    """One arm minus another, paired by prompt and seed; p is adjusted by Holm or by Benjamini and Hochberg (p_bh)."""

    diff: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    p_bh: float | None = None
    mde: float | None = None
    needs_prompts: int | None = None
    equivalence: Same | None = None
    family: str = "primary"
    verdict: str


class Kept(Row):
    """Whether an arm keeps a metric's gate: ``limit`` of its own mean, or ``margin`` of its loss against no LoRA."""

    word: str
    limit: float | None = None
    keep: Literal["above", "below"] = "above"
    margin: float | None = None
    calibrated: bool = False


class Setting(Row):
    """A setting against no LoRA over its training seeds."""

    training_seeds: int
    weights: Span
    setting: Span | None = None
    training_sd: float | None = None
    why_not: str | None = None
    verdict: str = "not measured"


class Selected(Row):
    """The arm with the best mean of a primary metric, and how much of that luck alone would give."""

    chosen: str
    candidates: int
    selected: Span
    expected_bias: float | None = None


class Clip(Row):
    """Who looked at the pictures; `published` says whether it is the CLIP that CLIPscore was defined with."""

    name: str
    sha256: str
    published: bool


class Reference(Row):
    """What the scores are read against, all from real pictures (`vez.metrics.scores`); None: not measured."""

    held_out: int = 0
    real_likeness: float | None = None
    likeness_span: float | None = None
    trigger_cost: float | None = None
    training_alike: dict[str, float] = Field(default={})


class Looked(Row):
    """Which reading of these LoRAs the scores are, of how many planned, and what of the error that look may spend.

    ``asked`` is what vez.toml said, where it is not the plan of the first look.
    """

    look: int = Field(ge=1)
    of: int = Field(ge=1)
    alpha: float = Field(ge=0, le=1)
    planned: bool
    asked: int | None = None
    confirmation: "Looked | None" = None


@dataclass(frozen=True)
class Tables:
    """`arms` and `against_base` are arm → metric → …; `pairs` (arm, arm) → metric → first minus second."""

    arms: dict[str, dict[str, Score]] = field(default_factory=dict)
    against_base: dict[str, dict[str, Difference]] = field(default_factory=dict)
    pairs: dict[tuple[str, str], dict[str, Difference]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores(Tables):
    """scores/. `not_measured` says of a metric what it would have needed; `gates` is arm → metric → kind → Kept.

    `confirmed` are the tables of the prompts that had no say, and `confirming` those prompts: `rows` holds them too.
    `explored` are a sweep's arms that nobody declared; `controls` and `tiers` stand as they were written.
    `nearest` holds each arm's pictures that lie nearest to a training picture.
    """

    artifact: Artifact | None = None
    metrics: dict[str, Metric] = field(default_factory=dict)
    rows: tuple[ScoreRow, ...] = ()
    not_measured: dict[str, str] = field(default_factory=dict)
    gates: dict[str, dict[str, dict[str, Kept]]] = field(default_factory=dict)
    settings: dict[str, dict[str, Setting]] = field(default_factory=dict)
    selection: dict[str, Selected] = field(default_factory=dict)
    confirmed: Tables | None = None
    confirming: frozenset[str] = frozenset()
    explored: frozenset[str] = frozenset()
    controls: Mapping[str, Any] = field(default_factory=dict)
    tiers: Mapping[str, Any] = field(default_factory=dict)
    nearest: dict[str, tuple[NeighbourRow, ...]] = field(default_factory=dict)
    reference: Reference | None = None
    clip: Clip | None = None
    looks: Looked | None = None

    @cached_property
    def cells(self) -> dict[tuple[str, str], dict[tuple[str, int], float]]:
        """(metric, arm) → (prompt, seed) → value, of the prompts that do not confirm."""
        found: dict[tuple[str, str], dict[tuple[str, int], float]] = {}
        for row in self.rows:
            if row.prompt not in self.confirming and math.isfinite(row.value):
                found.setdefault((row.metric, row.arm), {})[row.prompt, row.seed] = row.value
        return found


def read_rows(path: Path, kind: type[RowType]) -> Iterator[RowType]:
    """The rows of a .jsonl file. Raises StoreError naming the line that is not such a row."""
    try:
        # Not splitlines(): a caption may hold other characters that Python takes for the end of a line.
        lines = [line for line in path.read_bytes().decode("utf-8").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {path}: {error}; make the artifact again") from error
    for number, line in enumerate(lines, start=1):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the line"
            raise StoreError(f"{path}, line {number}: {place}: {first['msg']}; make the artifact again") from error


def read(artifact: Artifact) -> Scores:
    """A scores artifact. Raises StoreError where it is not what it should be."""
    path = artifact.path / "summary.json"
    rows = tuple(read_rows(artifact.path / "scores.jsonl", ScoreRow))
    try:
        return parsed(json.loads(path.read_bytes()), artifact=artifact, rows=rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is not a summary of scores ({error}); delete {artifact.path}, score again") from error


def parsed(summary: Mapping[str, Any], *, artifact: Artifact | None = None, rows: tuple[ScoreRow, ...] = ()) -> Scores:
    """summary.json as data. Raises ValueError, KeyError, TypeError or AttributeError for what is not one."""
    reference, clip, confirmed = summary.get("reference"), summary.get("clip"), summary.get("confirmation") or {}
    return Scores(
        **_tables(summary),
        artifact=artifact,
        metrics={name: Metric.model_validate(row) for name, row in summary["metrics"].items()},
        rows=rows,
        not_measured={name: str(needs) for name, needs in summary.get("not_measured", {}).items()},
        gates={arm: _kept(of) for arm, of in summary.get("gates", {}).items()},
        settings=_by_arm(summary.get("settings", {}), Setting),
        selection={name: Selected.model_validate(of) for name, of in summary.get("selection", {}).items()},
        confirmed=Tables(**_tables(confirmed)) if confirmed.get("arms") else None,
        confirming=frozenset(confirmed.get("prompts", ())),
        explored=frozenset(summary.get("explored", ())),
        controls=dict(summary.get("controls") or {}),
        nearest={arm: tuple(map(NeighbourRow.model_validate, of)) for arm, of in summary.get("nearest", {}).items()},
        tiers=dict(summary.get("tiers") or {}),
        reference=None if reference is None else Reference.model_validate(reference),
        clip=None if clip is None else Clip.model_validate(clip),
        looks=None if summary.get("looks") is None else Looked.model_validate(summary["looks"]),
    )


def _tables(summary: Mapping[str, Any]) -> dict[str, Any]:
    pairs = summary.get("pairs", {}).items()
    return {
        "arms": _by_arm(summary["arms"], Score),
        "against_base": _by_arm(summary.get("against_base", {}), Difference),
        "pairs": {(one, other): of for one, others in pairs for other, of in _by_arm(others, Difference).items()},
    }


def _kept(rows: Mapping[str, Any]) -> dict[str, dict[str, Kept]]:
    return {name: {kind: Kept.model_validate(row) for kind, row in of.items()} for name, of in rows.items()}


def _by_arm(rows: Mapping[str, Mapping[str, Any]], kind: type[RowType]) -> dict[str, dict[str, RowType]]:
    return {arm: {name: kind.model_validate(row) for name, row in of.items()} for arm, of in rows.items()}
