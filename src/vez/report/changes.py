"""The page on what differs between two versions of a dataset: one self-contained HTML file with small pictures."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import vez
from vez.dataset.diff import ASPECTS, Changed, Changes, Fact, Single, diff, label, reason
from vez.dataset.rows import Dataset, Row
from vez.images.wording import Piece, visible
from vez.report import motif, view
from vez.report.build import HERE, shown
from vez.report.figures import number_of
from vez.report.pictures import Album, Wanted, embed
from vez.report.view import Cell
from vez.store import write_atomic

PICTURE_BUDGET: Final = 3_500_000  # bytes of base64; with the words below, the page stays under 5 MB
EDGE: Final = 208  # twice the size on the page, for fine screens
MOST_SHOWN: Final = 300  # entries of one section
MOST_CHARACTERS: Final = 600  # of one caption
STITCHES: Final = 96  # in a line of the drawing; of more pictures, one stitch stands for several


GONE: Final = "no longer in the folder"
_SIGNS: Final = {
    "kept": "in both",
    "edited": "in both, changed",
    "removed": "removed",
    "added": "added",
}


@dataclass(frozen=True)
class Entry:
    """One picture of a section, with what is said about it."""

    name: str
    cells: tuple[Cell, ...]
    caption: str = ""
    pieces: tuple[Piece, ...] = ()
    facts: tuple[Fact, ...] = ()
    note: str = ""
    held_out: bool = False


@dataclass(frozen=True)
class Group:
    """Removed pictures that one check (or one cause) is about."""

    title: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Line:
    """One version in the drawing: the stitches of each kind (kept, edited, added, removed) as SVG path data."""

    name: str
    paths: tuple[tuple[str, str], ...]
    stitches: int


def write(old: Dataset, new: Dataset, to: Path) -> Path:
    """Compare two versions and write the page; its folder is made where it is missing. Raises StoreError."""
    write_atomic(to, page(diff(old, new), old, new).encode("utf-8"))
    return to


def page(changes: Changes, old: Dataset, new: Dataset, *, picture_budget: int = PICTURE_BUDGET) -> str:
    """The HTML on the changes between ``old`` and ``new``; a picture is read from the version that has it.

    Sections show their first 300 entries and say how many more there are; the same datasets give the same bytes.
    """
    removed = _removed(changes.removed[:MOST_SHOWN], old)
    added = [_added(single, new) for single in changes.added[:MOST_SHOWN]]
    captions = [_recaptioned(change, new) for change in changes.captions[:MOST_SHOWN]]
    otherwise = [_otherwise(change, old, new) for change in changes.otherwise[:MOST_SHOWN]]
    refused = [(_cut(d.file), _cut(reason(d))) for d in changes.refused[:MOST_SHOWN]]
    entries = [*(e for group in removed for e in group.entries), *added, *otherwise, *captions]
    album = _album([c.wanted for e in entries for c in e.cells if c.wanted], picture_budget)
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,  # captions and file names are other people's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(visible=visible, number_of=number_of, pieces=view.pieces)
    environment.globals.update(shown=shown, aspects=ASPECTS, stitch=_stitch)
    style = "\n".join((HERE / name).read_text(encoding="utf-8").strip() for name in ("page.css", "changes.css"))
    return environment.get_template("changes.html.j2").render(
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode("ascii"),
        vez_version=vez.__version__,
        band=Markup(motif.band()),
        changes=changes,
        names=names(changes),
        sentence=sentence(changes),
        lines=_drawn(changes),
        per_stitch=_per_stitch(changes),
        signs=_SIGNS,
        removed=removed,
        added=added,
        captions=captions,
        otherwise=otherwise,
        refused=refused,
        settings=[(s.key, _cut(s.before), _cut(s.after)) for s in changes.settings[:MOST_SHOWN]],
        most=MOST_SHOWN,
        album=album,
        note=_note(album),
    )


def sentence(changes: Changes) -> str:
    """The changes in one sentence: what a reader should know if it is all that is read."""
    old, new = names(changes)
    if changes.is_empty:
        return f"{new} is the same as {old}."
    parts = []
    if changes.removed:
        parts.append(f"leaves out {number_of(len(changes.removed), 'picture')} of {old}")
    if changes.added:
        parts.append(f"brings {number_of(len(changes.added), 'new picture')}")
    if changes.captions:
        parts.append(f"says {number_of(len(changes.captions), 'caption')} in other words")
    if not parts and changes.otherwise:
        parts.append(f"has {number_of(len(changes.otherwise), 'picture')} of {old} in another form")
    if not parts and changes.settings:
        parts.append(f"is made with other settings ({len(changes.settings)})")
    if not parts:
        parts.append(f"left out {number_of(len(changes.refused), 'new picture')} at the door")
    return f"{new} {', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}."


def names(changes: Changes) -> tuple[str, str]:
    """What the versions are called: their names in vez.toml, and their ids where one name was built twice."""
    versions = (changes.old, changes.new)
    same = changes.old.name == changes.new.name
    old, new = (visible(f"{v.name} {v.id[:8]}" if same else v.name) for v in versions)
    return old, new


def _removed(singles: Sequence[Single], old: Dataset) -> list[Group]:
    """By check, the checks in the order of their first picture; what merely is not there any more comes last."""
    titles = [single.check or GONE for single in singles]
    order = {title: i for i, title in enumerate(dict.fromkeys(sorted(titles, key=lambda t: t == GONE)))}
    ordered = sorted(zip(titles, singles, strict=True), key=lambda pair: order[pair[0]])
    groups = []
    for title, of in groupby(ordered, key=lambda pair: pair[0]):
        entries = tuple(_entry(single.row, old, note=_cut(_without(title, single.reason))) for _, single in of)
        groups.append(Group(visible("excluded by hand" if title == "excluded" else title), entries))
    return groups


def _without(title: str, said: str) -> str:
    """A reason without the check's name, which its group already has for a title."""
    for start in (f"{title}: ", "excluded by hand: "):
        said = said.removeprefix(start)
    return said


def _added(single: Single, new: Dataset) -> Entry:
    note = f"not in the old version: {single.reason}" if single.check else single.reason
    return _entry(single.row, new, caption=_cut(single.row.caption), note=_cut(note))


def _recaptioned(change: Changed, new: Dataset) -> Entry:
    return _entry(change.new, new, pieces=tuple(_first(change.caption, MOST_CHARACTERS)))


def _otherwise(change: Changed, old: Dataset, new: Dataset) -> Entry:
    redrawn = any(fact.aspect in ("pixels", "crop", "size") for fact in change.facts)
    cells = (_cell(change.old, old, "before"), _cell(change.new, new, "after")) if redrawn else ()
    return _entry(change.new, new, cells=cells, facts=change.facts)


def _entry(
    row: Row,
    dataset: Dataset,
    *,
    cells: tuple[Cell, ...] = (),
    caption: str = "",
    pieces: tuple[Piece, ...] = (),
    facts: tuple[Fact, ...] = (),
    note: str = "",
) -> Entry:
    drawn = cells or (_cell(row, dataset, ""),)
    return Entry(_cut(label(row)), drawn, caption, pieces, facts, note, row.split == "held_out")


def _cell(row: Row, dataset: Dataset, when: str) -> Cell:
    name = visible(f"{label(row)}, {when}" if when else label(row))
    inside = ".." not in Path(row.file).parts and not Path(row.file).is_absolute()
    return Cell(Wanted(dataset.path / row.file, EDGE) if inside else None, name)


def _first(pieces: Iterable[Piece], most: int) -> Iterable[Piece]:
    """The pieces up to so many characters, safe to show."""
    for piece in pieces:
        if most <= 0:
            return
        yield Piece(piece.kind, visible(_short(piece.text, most)))
        most -= len(piece.text)


def _cut(text: str) -> str:
    return visible(_short(text, MOST_CHARACTERS))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " …"


def _album(wanted: Sequence[Wanted], budget: int) -> Album:
    """The pictures within the budget, where one that stands on the page twice counts twice."""
    album = embed(wanted, budget=budget)
    allowed = budget
    while (spent := sum(len(album.pictures[want].uri) for want in wanted if want in album.pictures)) > budget:
        allowed = allowed * budget // spent
        album = embed(wanted, budget=allowed)
    return album


def _per_stitch(changes: Changes) -> int:
    kept = changes.unchanged + len(changes.changed)
    return max(1, -(-(kept + max(len(changes.removed), len(changes.added))) // STITCHES))


def _drawn(changes: Changes) -> tuple[Line, Line]:
    """Both versions as lines of stitches; what both have stands first, at the same places."""
    per, edited = _per_stitch(changes), len(changes.changed)

    def line(name: str, *runs: tuple[str, int]) -> Line:
        paths, at = [], 0
        for kind, count in runs:
            length = -(-count // per)
            if length:
                paths.append((kind, "".join(_stitch(kind, i) for i in range(at, at + length))))
            at += length
        return Line(name, tuple(paths), at)

    old, new = names(changes)
    return (
        line(old, ("kept", changes.unchanged), ("kept", edited), ("removed", len(changes.removed))),
        line(new, ("kept", changes.unchanged), ("edited", edited), ("added", len(changes.added))),
    )


def _stitch(kind: str, place: int) -> str:
    """A cross of two threads, or a ring where the picture is gone; ten units wide, eight of them drawn on."""
    x = place * 10
    return f"M{x + 1} 4a3 3 0 1 0 6 0a3 3 0 1 0 -6 0" if kind == "removed" else f"M{x + 1} 1l6 6m0-6l-6 6"


def _note(album: Album) -> str:
    note = f"{number_of(len(album.pictures), 'small picture')} on this page"
    if album.left_out:
        note += f"; {len(album.left_out)} more had no room"
    if album.failed:
        note += f"; {len(album.failed)} could not be read"
    return note + "."
