"""A lint artifact as it lies on disk: findings.jsonl (`vez.images.findings.Finding`) and diversity.json (`Diversity`).

Reading it needs no model library, so the report can.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

from vez.errors import StoreError
from vez.images.findings import LEVELS, Finding
from vez.store import open_artifact, write_atomic

KIND: Final = "lint"
VERSION: Final = 2  # raised when the same dataset and settings would give other findings
FINDINGS: Final = "findings.jsonl"
DIVERSITY: Final = "diversity.json"


@dataclass(frozen=True)
class Measure:
    """How many different ones there are in effect: the Vendi score (Friedman and Dieng 2023) over ``n`` pictures."""

    name: str
    effective: float
    most: int
    """As many as there could be: labels, or pictures."""
    n: int
    """Pictures it could be told of."""
    of: int
    """Pictures trained on."""
    how: str
    """What two pictures' likeness is."""
    shares: dict[str, float] = field(default_factory=dict)
    """Label → its share of the n; empty where there are no labels."""
    told_by: dict[str, int] = field(default_factory=dict)
    """Who told it: crop, caption, CLIP → of how many pictures."""


@dataclass(frozen=True)
class Map:
    """Pictures counted by two groups: ``counts[row][column]``; a 0 is a hole."""

    row_group: str
    column_group: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    n: int
    of: int


@dataclass(frozen=True)
class Advice:
    """What to add next. ``gain`` is by what factor the effective number of ``group`` grows with ``pictures`` of it."""

    add: str
    group: str
    gain: float
    pictures: int


@dataclass(frozen=True)
class Attribute:
    """A label that is seen on ``pictures`` of ``n`` and named by ``captions`` of n; ``named`` where it is seen."""

    group: str
    label: str
    n: int
    pictures: int
    captions: int
    named: int
    verdict: str


@dataclass(frozen=True)
class Trust:
    """How far CLIP's opinion on a group goes: it agrees with ``agree`` of the ``n`` captions that name a label.

    ``state`` is "agrees", "disagrees" (then it is not used), "unchecked" (too few captions name one), or "unasked".
    """

    group: str
    state: str
    n: int = 0
    agree: int = 0
    chance: float = 0.0
    """Agreement that the same answers would have by chance (Cohen 1960)."""
    unknown: tuple[str, ...] = ()
    """Labels that this CLIP has no words for."""


@dataclass(frozen=True)
class Diversity:
    """diversity.json. ``not_measured`` says of what is missing what it would have needed."""

    pictures: int
    measures: tuple[Measure, ...] = ()
    map: Map | None = None
    advice: tuple[Advice, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    trust: tuple[Trust, ...] = ()
    not_measured: dict[str, str] = field(default_factory=dict)
    clip: str = ""
    """Name and first digits of the SHA-256 of the CLIP that looked; empty: none did."""


@dataclass(frozen=True)
class Lint:
    """A finished lint artifact; ``dataset`` is the id of the dataset it is about."""

    path: Path
    id: str
    dataset: str
    findings: tuple[Finding, ...]
    diversity: Diversity


def save(folder: Path, findings: list[Finding], diversity: Diversity) -> None:
    """Write both files, each whole or not at all. Raises StoreError."""
    rows = "".join(json.dumps(asdict(finding), ensure_ascii=False) + "\n" for finding in findings)
    write_atomic(folder / FINDINGS, rows.encode("utf-8", "backslashreplace"))
    text = json.dumps(asdict(diversity), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(folder / DIVERSITY, text.encode("utf-8", "backslashreplace"))


def load(path: Path) -> Lint:
    """Open a lint artifact. Raises StoreError where it is none, or damaged."""
    artifact = open_artifact(path)
    if artifact.kind != KIND:
        raise StoreError(f"{path} is a {artifact.kind}, not a {KIND}")
    try:
        lines = (path / FINDINGS).read_text(encoding="utf-8").split("\n")  # splitlines() knows more ends than JSON
        findings = tuple(_finding(json.loads(line)) for line in lines if line)
        diversity = _diversity(json.loads((path / DIVERSITY).read_bytes()))
        dataset = artifact.parents["dataset"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(f"{path} cannot be read as a lint ({error}); delete the folder and lint again") from error
    return Lint(path, artifact.id, dataset, findings, diversity)


def _finding(row: dict[str, Any]) -> Finding:
    texts = [name for name in ("file", "check", "why", "fix", "other", "waived") if not isinstance(row.get(name), str)]
    if texts or row.get("level") not in LEVELS:
        raise ValueError(f"a finding's {(*texts, 'level')[0]} is not what it should be")
    return Finding(**row)


def _diversity(row: Mapping[str, Any]) -> Diversity:
    kinds: dict[str, Any] = {"measures": Measure, "advice": Advice, "attributes": Attribute, "trust": Trust}
    parts = {name: tuple(_part(kind, part) for part in row[name]) for name, kind in kinds.items()}
    drawn = row["map"] and _part(Map, row["map"])
    if drawn and [len(line) for line in drawn.counts] != [len(drawn.columns)] * len(drawn.rows):
        raise ValueError("the map's counts do not fit its rows and columns")
    missing = {str(name): str(needs) for name, needs in row["not_measured"].items()}
    return Diversity(pictures=int(row["pictures"]), map=drawn, not_measured=missing, clip=str(row["clip"]), **parts)


def _part(kind: Any, row: Mapping[str, Any]) -> Any:
    """A dataclass from its JSON: lists become tuples; a number must be one. Raises TypeError, ValueError."""
    values = {name: _tuples(value) for name, value in row.items()}
    for name, annotation in kind.__annotations__.items():
        if annotation in (int, float) and (isinstance(values[name], bool) or not isinstance(values[name], int | float)):
            raise ValueError(f"{name} is not a number")
        if get_args(annotation)[:1] == (str,) and not isinstance(values[name], tuple | dict):
            raise ValueError(f"{name} is not a list")
    return kind(**values)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
