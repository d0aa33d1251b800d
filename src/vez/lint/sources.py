"""What can be said of a dataset by where its pictures come from: sources, authors, licences, people; and its shapes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from vez.config import Project, Study
from vez.dataset import Row
from vez.images.findings import Finding
from vez.images.provenance import Provenance
from vez.lint.alike import clusters
from vez.lint.rules import FEW, SHARE, SOURCES, finding

_UNKNOWN = Provenance("")


def sources_of(rows: Sequence[Row], provenance: Mapping[str, Provenance]) -> list[int]:
    """For each row the number of its source: rows of one file, group, page or original are one source."""
    first: dict[tuple[str, str], int] = {}
    pairs = []
    for i, row in enumerate(rows):
        for key in _marks(row, provenance):
            pairs.append((first.setdefault(key, i), i))
    return clusters(len(rows), pairs)


def _marks(row: Row, provenance: Mapping[str, Provenance]) -> list[tuple[str, str]]:
    """What two rows of one source share: (what it is, its value)."""
    record = provenance.get(row.source, _UNKNOWN)
    marks = [
        ("file", row.source_sha256),
        ("group", row.group),
        ("page", record.page),
        ("original", record.original_sha256),
        ("name", row.source),
    ]
    return [(what, value) for what, value in marks if value]


def shared(rows: Sequence[Row], provenance: Mapping[str, Provenance]) -> Iterator[Finding]:
    """Held-out rows that share a file, a group, a page or an original with a row that is trained on."""
    trained: dict[tuple[str, str], str] = {}
    for row in rows:
        if row.split == "train":
            for mark in _marks(row, provenance):
                trained.setdefault(mark, row.source)
    told = set()
    for row in rows:
        if row.split == "held_out" and row.source not in told:
            hit = next((mark for mark in _marks(row, provenance) if mark in trained), None)
            if hit is not None:
                told.add(row.source)
                yield finding("shared-source", row.source, f"the same {hit[0]}", "none", other=trained[hit])


def alone(rows: Sequence[Row], provenance: Mapping[str, Provenance]) -> Iterator[Finding]:
    """Too few sources; too much of one author. By the pictures trained on."""
    train = [row for row in rows if row.split == "train"]
    count = len(set(sources_of(train, provenance)))
    if count < SOURCES:
        yield finding("few-sources", value=count, threshold=SOURCES)
    authors = Counter(author for row in _each(train) if (author := _record(row, provenance).author.strip()))
    named = sum(authors.values())
    if named >= FEW:
        author, most = authors.most_common(1)[0]
        if most > SHARE * named:
            yield finding(
                "one-author", value=f"{author}: {most} of {named} pictures whose author is known", threshold=SHARE
            )


def rights(rows: Sequence[Row], provenance: Mapping[str, Provenance], *, public: bool) -> Iterator[Finding]:
    """Licences and people on record, one finding a picture; what nobody said matters in public projects."""
    unsaid = []
    pictures = _each(rows)
    for row in pictures:
        record = _record(row, provenance)
        licence = row.licence or record.licence
        lacking = [what for what, value in (("author", record.author), ("licence", licence)) if not value.strip()]
        if public and lacking:
            yield finding("licence-missing", row.source, f"no {' and no '.join(lacking)}")
        if "nd" in licence.lower().replace("_", "-").replace(" ", "-").split("-"):
            yield finding("no-derivatives", row.source, licence)
        if record.people == "identifiable" and not record.consent.strip():
            yield finding("face", row.source, "identifiable, no consent on record")
        elif not record.people:
            unsaid.append(row.source)
    if public and unsaid:
        why = "whether people can be recognised on these pictures is not on record"
        yield finding("face", value=f"{len(unsaid)} of {len(pictures)} pictures", level="info", why=why)


def shapes(rows: Sequence[Row]) -> Iterator[Finding]:
    """A picture that is alone in its aspect bucket."""
    buckets: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row.split == "train" and row.width and row.height:
            buckets[row.width, row.height].append(row)
    if len(buckets) > 1:
        for (width, height), of in sorted(buckets.items()):
            if len(of) == 1:
                yield finding("lone-bucket", of[0].source, f"{width}×{height}", "2 pictures")


def length(rows: Sequence[Row], studies: Mapping[str, Study], dataset: str) -> Iterator[Finding]:
    """For each study that learns from the dataset: steps an epoch and in all, how often each picture is shown."""
    pictures = sum(row.split == "train" for row in rows)
    for name, study in studies.items():
        batches = sorted({variant.batch for variant in study.variant.values() if variant.dataset == dataset})
        for batch in batches:
            steps = next(study.steps_of(v, pictures) for v in study.variant.values() if v.batch == batch)
            epoch = -(-pictures * study.repeats // batch)
            shown = steps * batch / max(1, pictures)
            repeats = f" × {study.repeats} repeats" if study.repeats > 1 else ""
            value = f"study {name}, batch {batch}: {pictures} pictures{repeats}, {epoch} steps an epoch, {steps} in all"
            yield finding("length", value=f"{value}: each picture is shown {shown:.0f} times")


def set_findings(
    rows: Sequence[Row], provenance: Mapping[str, Provenance], *, project: Project, role: str
) -> list[Finding]:
    """Everything in this module but `length`. Class pictures are held out nowhere, and one author may take them all."""
    found = [*shared(rows, provenance), *rights(rows, provenance, public=project.public), *shapes(rows)]
    return found + [f for f in alone(rows, provenance) if role != "class" or f.check != "one-author"]


def _each(rows: Iterable[Row]) -> list[Row]:
    """One row for each picture file: the first of its crops."""
    return list({row.source: row for row in reversed(list(rows))}.values())[::-1]


def _record(row: Row, provenance: Mapping[str, Provenance]) -> Provenance:
    return provenance.get(row.source, _UNKNOWN)
