"""The parts of the page that are pictures and provenance: grid, trigger test, data, and where everything came from."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path, PureWindowsPath

from vez.errors import StoreError
from vez.images import provenance
from vez.images.provenance import Provenance
from vez.report.arms import Arm
from vez.report.evidence import Data, DatasetRow, DroppedRow, Evidence, FindingRow, SampleRow, inside
from vez.report.pictures import Album, Wanted
from vez.store import Artifact

# Pixels of an embedded picture's longer side: shown smaller, and at this size where a reader enlarges it.
GRID_EDGE, STRIP_EDGE, THUMB_EDGE = 512, 320, 320
ROLE_NAMES = {
    "trigger": "with the trigger word",
    "class": "described in words",
    "wrong": "with a wrong trigger word",
    "none": "without either",
    "drift": "unrelated",
}
TEST_ROLES = ("trigger", "class", "wrong", "none")


@dataclass(frozen=True)
class Cell:
    """A place for a picture; `wanted` is None where none was drawn."""

    wanted: Wanted | None
    alt: str


@dataclass(frozen=True)
class GridLine:
    """One prompt's row of the grid, a cell per arm."""

    prompt: str
    text: str
    role: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class SeedGrid:
    """The grid at one seed."""

    seed: int
    lines: tuple[GridLine, ...]


@dataclass(frozen=True)
class Strip:
    """One arm's row of a trigger test: for each role its pictures, a cell per seed."""

    label: str
    by_role: tuple[tuple[Cell, ...], ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All of them, in order."""
        return tuple(cell for cells in self.by_role for cell in cells)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Of each role, where its cells begin and end among `cells`."""
        ends = [*accumulate((len(cells) for cells in self.by_role), initial=0)]
        return tuple(pairwise(ends))


@dataclass(frozen=True)
class TriggerTest:
    """One scene asked for in up to four ways; `columns` are (name of the role, text)."""

    group: str
    columns: tuple[tuple[str, str], ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Thumb:
    """One picture of a dataset with its caption."""

    cell: Cell
    row: DatasetRow


@dataclass(frozen=True)
class DataPart:
    """One dataset: what went in, what was thrown out and why."""

    name: str
    id: str
    train: int
    held_out: int
    hand: int
    thumbs: tuple[Thumb, ...]
    findings: tuple[FindingRow, ...]
    dropped: tuple[DroppedRow, ...]
    sources: tuple[Provenance, ...]


@dataclass(frozen=True)
class Origin:
    """One artifact's row in "how this was made"."""

    kind: str
    folder: str
    id: str
    version: int
    parents: tuple[tuple[str, str], ...]


def seed_grids(evidence: Evidence, arms: Sequence[Arm]) -> tuple[SeedGrid, ...]:
    """Prompt × arm at each seed, in the order they were drawn; what only the trigger tests ask for is left to them."""
    if evidence.samples is None:
        return ()
    in_tests = {row.prompt for group in _groups(evidence.drawn).values() for row in group if row.role in TEST_ROLES[1:]}
    rows = [row for row in evidence.drawn if row.prompt not in in_tests]
    by_place = {(row.arm, row.prompt, row.seed): row for row in rows}
    prompts = {row.prompt: row for row in reversed(rows)}
    grids = []
    for seed in _seeds(rows):
        drawn = dict.fromkeys(row.prompt for row in rows if row.seed == seed)  # not every prompt has as many
        lines = [_grid_line(prompts[prompt], seed, arms, by_place, evidence.samples.path) for prompt in drawn]
        grids.append(SeedGrid(seed, tuple(lines)))
    return tuple(grids)


def trigger_tests(evidence: Evidence, arms: Sequence[Arm]) -> tuple[TriggerTest, ...]:
    """The groups of prompts that ask for one scene in two or three ways."""
    if evidence.samples is None:
        return ()
    folder, seeds = evidence.samples.path, _seeds(evidence.drawn)
    return tuple(_trigger_test(group, rows, arms, seeds, folder) for group, rows in _groups(evidence.drawn).items())


def data_parts(datasets: Iterable[Data]) -> tuple[DataPart, ...]:
    """One part per dataset, by name."""
    return tuple(_data_part(data) for data in datasets)


def origins(evidence: Evidence) -> tuple[Origin, ...]:
    """Every artifact the page was read from, parents before children."""
    found = [data.artifact for data in evidence.datasets]
    found += [run.artifact for run in evidence.runs if run.artifact]
    found += [artifact for artifact in (evidence.samples, evidence.scores and evidence.scores.artifact) if artifact]
    return tuple(_origin(artifact) for artifact in found)


def suite_note(evidence: Evidence) -> str:
    """What was asked for and what was checked while it was drawn, in sentences; "" where no samples say so.

    Raises StoreError for controls that cannot be read.
    """
    samples = evidence.samples
    about = {} if samples is None else samples.config.get("suite") or {}
    if samples is None or not about:
        return ""
    told = "The prompts are the study's own."
    if about["sha256"]:
        told = (
            f"The prompts are vez's suite {about['suite']}, worded for a concept of the kind {about['kind']} (SHA-256 "
        )
        told += f"{about['sha256'][:16]}), profile {about['profile']}."
    file = samples.path / "controls.json"
    try:
        levels = json.loads(file.read_bytes())["strength_0"].values() if file.is_file() else []
        if levels:
            told += (
                f" At strength 0 every LoRA drew what no LoRA draws, apart by at most {max(map(int, levels))} of 255."
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} does not say what was checked ({error}); delete it") from error
    return told


def words_of(evidence: Evidence) -> dict[str, str]:
    """The trigger word and its companions as the datasets recorded them, the base as the samples did; "" if none."""
    projects = [data.artifact.config.get("project") for data in evidence.datasets]
    project = next((found for found in projects if isinstance(found, dict)), {})
    words = {name: project.get(name) for name in ("trigger", "noun", "describes")}
    words["base"] = evidence.samples.config.get("trained_on") if evidence.samples else None
    told = {name: value if isinstance(value, str) else "" for name, value in words.items()}
    base = PureWindowsPath(told["base"])  # reads both kinds of slash
    # A base in a folder goes by the folder's name: a report is passed on, a machine's paths are not.
    return {**told, "base": base.name if base.root or base.drive else told["base"]}


def pieces(text: str, word: str) -> list[tuple[str, bool]]:
    """The text cut at every occurrence of a word: (piece, whether it is the word)."""
    if not word:
        return [(text, False)]
    parts = text.split(word)
    cut = [(parts[0], False)]
    for part in parts[1:]:
        cut += [(word, True), (part, False)]
    return [(piece, hit) for piece, hit in cut if piece]


def wanted_cells(grids: Sequence[SeedGrid], tests: Sequence[TriggerTest], data: Sequence[DataPart]) -> Iterator[Wanted]:
    """The pictures of these grids, tests and datasets, the ones that matter most first."""
    cells = [cell for grid in grids for line in grid.lines for cell in line.cells]
    cells += [cell for test in tests for strip in test.strips for seeds in strip.by_role for cell in seeds]
    cells += [thumb.cell for part in data for thumb in part.thumbs]
    return (cell.wanted for cell in cells if cell.wanted is not None)


def with_room(grids: Sequence[SeedGrid], album: Album) -> tuple[tuple[SeedGrid, ...], tuple[int, ...]]:
    """The grids that show a picture, and the seeds of those that had no room for any."""
    shown = {grid.seed for grid in grids for line in grid.lines for cell in line.cells if cell.wanted in album.pictures}
    return tuple(grid for grid in grids if grid.seed in shown), tuple(g.seed for g in grids if g.seed not in shown)


def _seeds(rows: Iterable[SampleRow]) -> list[int]:
    return list(dict.fromkeys(row.seed for row in rows))


def _groups(rows: Iterable[SampleRow]) -> dict[str, list[SampleRow]]:
    """The groups in which a scene was asked for in more than one way."""
    found: dict[str, list[SampleRow]] = {}
    for row in rows:
        if row.group and row.role in TEST_ROLES:
            found.setdefault(row.group, []).append(row)
    return {group: of for group, of in found.items() if len({row.role for row in of}) > 1}


def _grid_line(
    prompt: SampleRow, seed: int, arms: Sequence[Arm], by_place: dict[tuple[str, str, int], SampleRow], folder: Path
) -> GridLine:
    cells = []
    for arm in arms:
        row = by_place.get((arm.name, prompt.prompt, seed))
        alt = f"{arm.label}, seed {seed}: {prompt.text}"
        cells.append(Cell(None if row is None else Wanted(inside(folder, row.file), GRID_EDGE), alt))
    return GridLine(prompt.prompt, prompt.text, ROLE_NAMES.get(prompt.role, prompt.role), tuple(cells))


def _trigger_test(
    group: str, rows: Sequence[SampleRow], arms: Sequence[Arm], seeds: Sequence[int], folder: Path
) -> TriggerTest:
    by_place = {(row.arm, row.role, row.seed): row for row in rows}
    texts = {row.role: row.text for row in reversed(rows)}
    roles = [role for role in TEST_ROLES if role in texts]
    strips = []
    for arm in arms:
        by_role = []
        for role in roles:
            found = [by_place.get((arm.name, role, seed)) for seed in seeds]
            by_role.append(tuple(_strip_cell(row, arm, folder) for row in found if row is not None))
        strips.append(Strip(arm.label, tuple(by_role)))
    return TriggerTest(group, tuple((ROLE_NAMES[role], texts[role]) for role in roles), tuple(strips))


def _strip_cell(row: SampleRow, arm: Arm, folder: Path) -> Cell:
    return Cell(Wanted(inside(folder, row.file), STRIP_EDGE), f"{arm.label}, seed {row.seed}: {row.text}")


def _data_part(data: Data) -> DataPart:
    folder = data.artifact.path
    thumbs = []
    for row in data.rows:
        wanted = Wanted(inside(folder, row.file), THUMB_EDGE)
        thumbs.append(Thumb(Cell(wanted, f"picture {row.source or row.file}"), row))
    return DataPart(
        name=_dataset_name(data.artifact),
        id=data.artifact.id,
        train=sum(row.split == "train" for row in data.rows),
        held_out=sum(row.split == "held_out" for row in data.rows),
        hand=sum(row.hand for row in data.rows),
        thumbs=tuple(thumbs),
        findings=data.findings,
        dropped=data.dropped,
        sources=tuple(provenance.read(folder).values()),
    )


def _dataset_name(artifact: Artifact) -> str:
    """The folder's name without the eight digits of the id at its end."""
    return artifact.path.name.removesuffix(f"-{artifact.id[:8]}")


def _origin(artifact: Artifact) -> Origin:
    folder = "/".join(artifact.path.parts[-2:])
    return Origin(artifact.kind, folder, artifact.id, artifact.version, tuple(sorted(artifact.parents.items())))
