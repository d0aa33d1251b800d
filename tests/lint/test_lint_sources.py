from dataclasses import replace

import pytest
from planted import PROJECT, row_of

from vez.config import Project, Study
from vez.dataset import Row
from vez.images.findings import Finding
from vez.images.provenance import Provenance
from vez.lint import sources

P = Project.model_validate(PROJECT)
PUBLIC = Project.model_validate(PROJECT | {"public": True})
ROWS = [row_of(i, f"caption {i}") for i in range(14)]
KNOWN = {
    row.source: Provenance(row.source, author=f"author {i % 4}", licence="CC-BY-4.0", people="none")
    for i, row in enumerate(ROWS)
}


def found(rows: list[Row], records: dict[str, Provenance], **how: object) -> list[Finding]:
    settings = {"project": P, "role": "concept"} | how
    return sources.set_findings(rows, records, **settings)  # type: ignore[arg-type]


def names(rows: list[Row], records: dict[str, Provenance], **how: object) -> list[tuple[str, str, str]]:
    return [(f.check, f.level, f.file) for f in found(rows, records, **how)]


def test_a_set_in_order_gives_nothing() -> None:
    assert names(ROWS, {}) == []
    assert names(ROWS, KNOWN, project=PUBLIC) == []


def test_rows_that_share_a_file_group_page_or_original_are_one_source() -> None:
    rows = [*ROWS[:4], replace(ROWS[4], group="g0"), replace(ROWS[5], source_sha256=ROWS[1].source_sha256)]
    records = {"0002.jpg": Provenance("0002.jpg", page="https://a"), "0000.jpg": Provenance("0000.jpg", page="https://a"),
               "0003.jpg": Provenance("0003.jpg", original_sha256="ab"),
               "0001.jpg": Provenance("0001.jpg", original_sha256="ab")}  # fmt: skip
    assert sources.sources_of(rows, records) == [0, 1, 0, 1, 0, 1]
    assert sources.sources_of([], {}) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"group": "g3"}, "the same group"),
        ({"source_sha256": ROWS[3].source_sha256}, "the same file"),
        ({}, "the same page"),
    ],
)
def test_a_held_out_row_of_a_trained_source_is_an_error(change: dict[str, str], what: str) -> None:
    held = replace(ROWS[0], split="held_out", **change)
    records = {} if change else {row.source: Provenance(row.source, page="https://a") for row in (ROWS[0], ROWS[3])}
    (finding,) = found([held, *ROWS[1:]], records)
    assert (finding.check, finding.level) == ("shared-source", "error")
    assert (finding.file, finding.other, finding.value) == (ROWS[0].source, ROWS[3].source, what)


def test_fewer_than_twelve_sources_are_few() -> None:
    assert names(ROWS[:12], {}) == []
    assert names(ROWS[:11], {}) == [("few-sources", "warning", "*")]
    crops = [replace(row, crop=crop) for row in ROWS[:11] for crop in ("full", "upper")]
    assert names(crops, {}) == [("few-sources", "warning", "*")]


def test_an_author_of_more_than_half_is_named() -> None:
    of_one = {source: replace(record, author="A") for source, record in list(KNOWN.items())[:8]}
    (finding,) = found(ROWS, KNOWN | of_one)
    assert finding.check == "one-author" and str(finding.value).startswith("A: 8 of 14")
    assert names(ROWS, KNOWN | of_one, role="class") == []
    half = {
        source: replace(record, author="A" if i % 2 else f"{i}") for i, (source, record) in enumerate(KNOWN.items())
    }
    assert names(ROWS, half) == []


def test_public_projects_need_author_and_licence() -> None:
    bare = {"0002.jpg": Provenance("0002.jpg", author="A", people="none"),
            "0003.jpg": Provenance("0003.jpg", people="none")}  # fmt: skip
    assert names(ROWS, KNOWN | bare) == []
    errors = found(ROWS, KNOWN | bare, project=PUBLIC)
    assert [(f.check, f.level, f.file, f.value) for f in errors] == [
        ("licence-missing", "error", "0002.jpg", "no licence"),
        ("licence-missing", "error", "0003.jpg", "no author and no licence"),
    ]
    crops = [replace(ROWS[3], crop=crop) for crop in ("full", "upper", "lower")]
    assert len(found([*ROWS[:3], *crops, *ROWS[4:]], KNOWN | bare, project=PUBLIC)) == 2


@pytest.mark.parametrize(
    ("licence", "flagged"), [("CC-BY-ND-4.0", True), ("by-nc-nd", True), ("CC BY-ND 2.0", True), ("CC-BY-4.0", False),
                             ("ANDROID", False), ("CC0-1.0", False)],
)  # fmt: skip
def test_no_derivatives(licence: str, flagged: bool) -> None:
    rows = [replace(ROWS[0], licence=licence), *ROWS[1:]]
    assert names(rows, {}) == ([("no-derivatives", "warning", "0000.jpg")] if flagged else [])


def test_identifiable_people_need_a_consent_on_record() -> None:
    who = {"0001.jpg": Provenance("0001.jpg", people="identifiable"),
           "0002.jpg": Provenance("0002.jpg", people="identifiable", consent="signed 2024-05-01")}  # fmt: skip
    assert names(ROWS, who) == [("face", "warning", "0001.jpg")]
    unsaid = {"0004.jpg": replace(KNOWN["0004.jpg"], people="")}
    assert names(ROWS, KNOWN | unsaid, project=PUBLIC) == [("face", "info", "*")]


def test_a_picture_alone_in_its_bucket() -> None:
    rows = [replace(row, width=96 if i == 5 else 128) for i, row in enumerate(ROWS)]
    (finding,) = found(rows, {})
    assert (finding.check, finding.file, finding.value) == ("lone-bucket", "0005.jpg", "96×128")
    held = [replace(row, split="held_out") if i == 5 else row for i, row in enumerate(rows)]
    assert names(held, {}) == []
    assert [f.check for f in sources.shapes(ROWS[:1])] == []


def test_length_counts_steps_and_how_often_a_picture_is_shown() -> None:
    study = Study.model_validate(
        {"images_seen": 1400, "variant": {"a": {"dataset": "v1", "batch": 4}, "b": {"dataset": "v2", "batch": 2}}}
    )
    (finding,) = sources.length(ROWS, {"s": study}, "v1")
    assert finding.level == "info"
    assert (
        finding.value == "study s, batch 4: 14 pictures, 4 steps an epoch, 350 in all: each picture is shown 100 times"
    )
    study = Study.model_validate({"epochs": 3, "repeats": 2, "variant": {"a": {"dataset": "v1", "batch": 4}}})
    (finding,) = sources.length(ROWS, {"s": study}, "v1")
    assert "14 pictures × 2 repeats, 7 steps an epoch, 21 in all: each picture is shown 6 times" in str(finding.value)
