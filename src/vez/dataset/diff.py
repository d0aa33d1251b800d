"""What is different between two versions of a dataset, row by row: what came, what went and why, and what changed.

Two rows are the same picture where their pixels are, else where they were cut from the very same file, else where
files of one name look alike (a retouched picture). Comparing in the other direction swaps added and removed.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np
from PIL import Image

from vez.dataset.rows import Dataset, Dropped, Row
from vez.images import wording
from vez.images.wording import Piece, visible

Aspect = Literal["name", "pixels", "file", "crop", "size", "split", "licence", "mask", "hand", "places"]
ASPECTS: Final[Mapping[Aspect, str]] = {
    "name": "renamed",
    "pixels": "pixels changed",
    "file": "file rewritten, same pixels",
    "crop": "crop",
    "size": "size",
    "split": "split",
    "licence": "licence",
    "mask": "mask",
    "hand": "caption written",
    "places": "also cut at",
}
_OF_ONE_BUILD: Final = frozenset({"sources", "hand", "pictures"})  # what the rows themselves show
_SAME_LOOK: Final = 0.7  # correlation of two small grey pictures; chance likenesses of photographs stay below


@dataclass(frozen=True)
class Version:
    """One of the two datasets, in numbers of rows."""

    name: str
    id: str
    train: int
    held_out: int


@dataclass(frozen=True)
class Single:
    """A row that only one version has, and what the other version's build said about its picture."""

    row: Row
    reason: str = ""
    """Why the other version has it not; empty for a picture that it never saw."""
    check: str = ""
    """The check that left it out there, or "excluded"; empty where none did."""


@dataclass(frozen=True)
class Fact:
    """One thing besides the caption that is different about a picture."""

    aspect: Aspect
    before: str
    after: str


@dataclass(frozen=True)
class Changed:
    """A row of both versions that is not the same in them."""

    old: Row
    new: Row
    caption: tuple[Piece, ...]
    """Its caption word by word; empty where no word is different."""
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Setting:
    """A setting that is different, as JSON; of a list only the entries that the other side lacks."""

    key: str
    before: str
    after: str


@dataclass(frozen=True)
class Changes:
    """All that is different between two versions; rows in the order of the version they are from."""

    old: Version
    new: Version
    added: tuple[Single, ...]
    removed: tuple[Single, ...]
    changed: tuple[Changed, ...]
    refused: tuple[Dropped, ...]
    """Pictures that the old version did not have and the new one's build left out."""
    settings: tuple[Setting, ...]
    unchanged: int

    @property
    def captions(self) -> tuple[Changed, ...]:
        """The rows whose captions changed."""
        return tuple(change for change in self.changed if change.caption)

    @property
    def otherwise(self) -> tuple[Changed, ...]:
        """The rows about which something besides the caption changed."""
        return tuple(change for change in self.changed if change.facts)

    @property
    def is_empty(self) -> bool:
        """Whether the versions hold the same rows, made with the same settings."""
        return not (self.added or self.removed or self.changed or self.refused or self.settings)

    def counts(self) -> dict[str, int]:
        """How many of each kind, in the order in which they are told."""
        return {
            "added": len(self.added),
            "removed": len(self.removed),
            "captions changed": len(self.captions),
            "otherwise changed": len(self.otherwise),
            "left out on arrival": len(self.refused),
            "settings changed": len(self.settings),
            "unchanged": self.unchanged,
        }


def diff(old: Dataset, new: Dataset, *, alike: Callable[[Row, Row], bool] | None = None) -> Changes:
    """Compare two versions.

    ``alike`` decides whether two rows that share nothing but the file's name show one picture; by default their
    training pictures are compared (correlation of 32×32 grey pixels ≥ 0.7). Nothing else reads a picture.
    """
    pairs = _pairs(old.rows, new.rows, alike or (lambda a, b: _look_alike(old, a, new, b)))
    partner = {id(b): a for a, b in pairs}
    matched = {id(a) for a, _ in pairs}
    changed = [change for row in new.rows if id(row) in partner and (change := _changed(partner[id(row)], row))]
    return Changes(
        old=_version(old),
        new=_version(new),
        added=_singles([row for row in new.rows if id(row) not in partner], old, gone=False),
        removed=_singles([row for row in old.rows if id(row) not in matched], new, gone=True),
        changed=tuple(changed),
        refused=_refused(old, new),
        settings=tuple(_settings(old.config, new.config)),
        unchanged=len(pairs) - len(changed),
    )


def label(row: Row) -> str:
    """What a row is called for people: its file, and which part of it where that is not the whole."""
    return row.source if row.crop == "full" else f"{row.source} ({row.crop})"


def as_text(changes: Changes) -> str:
    """The changes for a terminal. Whatever captions and file names hold, it prints as text."""
    old, new = changes.old, changes.new
    lines = [f"{_called(old)} → {_called(new)}"]
    counts = [f"{n} {what}" for what, n in changes.counts().items() if n]
    lines.append(", ".join(counts) if counts else "both are empty")
    for title, entries in (
        ("Removed", [f"- {visible(label(s.row))}: {visible(s.reason)}" for s in changes.removed]),
        ("Added", [f"+ {visible(label(s.row))}: {visible(s.row.caption)}{_formerly(s)}" for s in changes.added]),
        ("Left out on arrival", [f"  {visible(d.file)}: {visible(reason(d))}" for d in changes.refused]),
        ("Captions", [f"~ {visible(label(c.new))}: {wording.as_text(c.caption)}" for c in changes.captions]),
        ("Other changes", [f"~ {visible(label(c.new))}: {_told(c.facts)}" for c in changes.otherwise]),
        ("Settings", [f"  {visible(s.key)}: {visible(s.before)} → {visible(s.after)}" for s in changes.settings]),
    ):
        if entries:
            lines += ["", title, *entries]
    return "\n".join(lines)


def as_json(changes: Changes) -> str:
    """The changes for a machine: the fields of `Changes`, and the counts."""
    return json.dumps({"counts": changes.counts(), **asdict(changes)}, ensure_ascii=False, indent=1)


def reason(dropped: Dropped) -> str:
    """Why a picture was left out, in one clause that names the check."""
    if dropped.check == "excluded":
        return f"excluded by hand: {dropped.reason}"
    if not dropped.check or dropped.reason.startswith(f"{dropped.check}:"):
        return dropped.reason
    return f"{dropped.check}: {dropped.reason}"


def _version(dataset: Dataset) -> Version:
    return Version(dataset.name, dataset.id, len(dataset.train), len(dataset.held_out))


def _pairs(old: Iterable[Row], new: Iterable[Row], alike: Callable[[Row, Row], bool]) -> list[tuple[Row, Row]]:
    """The rows that are one picture, the surest matches first; the same pairs from either direction."""

    def same(_a: Row, _b: Row) -> bool:
        return True

    keys: tuple[tuple[Callable[[Row], Hashable], Callable[[Row, Row], bool]], ...] = (
        (lambda row: (row.sha256, row.source, row.crop), same),
        (lambda row: (row.sha256, row.crop), same),
        (lambda row: row.sha256, same),
        (lambda row: (row.source_sha256, row.crop), same),
        (lambda row: (row.source, row.crop), alike),
    )
    pairs: list[tuple[Row, Row]] = []
    left, right = list(old), list(new)
    for key, accepts in keys:
        found = [pair for pair in _zipped(left, right, key) if accepts(*pair)]
        one, other = {id(a) for a, _ in found}, {id(b) for _, b in found}
        left, right = [r for r in left if id(r) not in one], [r for r in right if id(r) not in other]
        pairs += found
    return pairs


def _zipped(left: list[Row], right: list[Row], key: Callable[[Row], Hashable]) -> Iterator[tuple[Row, Row]]:
    groups: dict[Hashable, tuple[list[Row], list[Row]]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((left, right)):
        for row in sorted(rows, key=lambda row: (row.source, row.crop, row.file)):
            groups[key(row)][side].append(row)
    for olds, news in groups.values():
        yield from zip(olds, news, strict=False)  # the rest of the longer side has no partner here


def _look_alike(old: Dataset, a: Row, new: Dataset, b: Row) -> bool:
    small = []
    for path in (old.path / a.file, new.path / b.file):
        try:
            with Image.open(path) as image:
                grey = image.convert("L").resize((32, 32), Image.Resampling.BOX)
        except OSError:
            return False  # a picture that is gone shows nothing
        small.append(np.asarray(grey, dtype=np.float64) - np.asarray(grey).mean())
    one, other = small
    scale = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return bool((one * other).sum() >= _SAME_LOOK * scale)


def _changed(old: Row, new: Row) -> Changed | None:
    pieces = wording.compare(old.caption, new.caption)
    caption = pieces if any(piece.kind != "same" for piece in pieces) else ()
    facts = tuple(_facts(old, new))
    return Changed(old, new, caption, facts) if caption or facts else None


def _facts(old: Row, new: Row) -> Iterator[Fact]:
    if old.source != new.source:
        yield Fact("name", old.source, new.source)
    cut = [(f"{row.crop} {list(row.box)}" if any(row.box) else row.crop) for row in (old, new)]
    size = [f"{row.width}×{row.height}" if row.width else "" for row in (old, new)]
    if old.source_sha256 != new.source_sha256:
        aspect: Aspect = "pixels" if old.sha256 != new.sha256 else "file"
        yield Fact(aspect, old.source_sha256[:8], new.source_sha256[:8])
    if cut[0] != cut[1]:
        yield Fact("crop", *cut)
    if size[0] != size[1]:
        yield Fact("size", *(s or "unknown" for s in size))
    elif cut[0] == cut[1] and old.source_sha256 == new.source_sha256 and old.sha256 != new.sha256:
        yield Fact("pixels", old.sha256[:8], new.sha256[:8])
    if old.split != new.split:
        yield Fact("split", *(row.split.replace("_", " ") for row in (old, new)))
    if old.licence != new.licence:
        yield Fact("licence", *(row.licence or "none" for row in (old, new)))
    if bool(old.mask) != bool(new.mask):
        yield Fact("mask", *("with" if row.mask else "none" for row in (old, new)))
    if old.hand != new.hand:
        yield Fact("hand", *("by hand" if row.hand else "by machine" for row in (old, new)))
    places = [", ".join(f"{m.box[0]},{m.box[1]}" for m in row.moved) or "no other place" for row in (old, new)]
    if places[0] != places[1]:
        yield Fact("places", *places)


def _singles(rows: Iterable[Row], other: Dataset, *, gone: bool) -> tuple[Single, ...]:
    """Rows that ``other`` lacks, with what its build said about the picture (by the file's content, else its name)."""
    dropped = {d.file: d for d in other.dropped}
    named: dict[str, list[str]] = defaultdict(list)
    for file, sha256 in _sources(other).items():
        named[sha256].append(file)
    shown = {row.source_sha256 for row in other.rows}

    def single(row: Row) -> Single:
        for file in (*named.get(row.source_sha256, ()), row.source):
            if file in dropped:
                return Single(row, reason(dropped[file]), dropped[file].check)
        if row.source_sha256 in shown:
            return Single(row, f"its {row.crop} crop is {'no longer' if gone else 'newly'} made")
        return Single(row, "no longer in the folder" if gone else "")

    return tuple(single(row) for row in rows)


def _refused(old: Dataset, new: Dataset) -> tuple[Dropped, ...]:
    """What the new build left out and no row of the old version, and no picture it left out, was made of."""
    contents = {row.source_sha256 for row in old.rows} | set(_sources(old).values())
    names = {row.source for row in old.rows} | {d.file for d in old.dropped}
    sources = _sources(new)
    return tuple(
        d for d in new.dropped if (sources[d.file] not in contents if d.file in sources else d.file not in names)
    )


def _sources(dataset: Dataset) -> dict[str, str]:
    """File → SHA-256 of every file that the build read, where its manifest says so."""
    sources = dataset.config.get("sources")
    return dict(sources) if isinstance(sources, Mapping) else {}


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Setting]:
    before, after = dict(_flat(old)), dict(_flat(new))
    for key in sorted({*before, *after}):
        a, b = before.get(key), after.get(key)
        if a == b:
            continue
        if isinstance(a, list) and isinstance(b, list):
            only = [entry for entry in a if entry not in b], [entry for entry in b if entry not in a]
            a, b = only if any(only) else (a, b)
        yield Setting(key, _short(a), _short(b))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if not prefix and key in _OF_ONE_BUILD:
            continue
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, str):
        is_hash = len(value) == 64 and set(value) <= set("0123456789abcdef")
        return value[:8] if is_hash else value
    return json.dumps(value, ensure_ascii=False)


def _called(version: Version) -> str:
    held_out = f", {version.held_out} held out" if version.held_out else ""
    return f"{visible(version.name)} {visible(version.id[:8])} ({version.train} to train on{held_out})"


def _formerly(single: Single) -> str:
    return f" (before: {visible(single.reason)})" if single.reason else ""


def _told(facts: Iterable[Fact]) -> str:
    return "; ".join(f"{ASPECTS[f.aspect]}: {visible(f.before)} → {visible(f.after)}" for f in facts)
