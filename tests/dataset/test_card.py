import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from vez.config import Project
from vez.dataset.card import card, plain, rows_sha256
from vez.dataset.rows import Dataset, Dropped
from vez.images import provenance
from vez.images.findings import Finding
from vez.images.provenance import Provenance
from vez.images.wording import visible

PROJECT = Project(base="tiny", trigger="zolka", noun="folk costume", describes="traditional folk costume")
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
HOSTILE = "x](http://evil.example/) <img src=x onerror=alert(1)> **b** | `c` &lt; # h\n---\n\x1b[31m"


@pytest.fixture
def dataset(tiny_dataset: Dataset, tmp_path: Path) -> Dataset:
    path = tmp_path / "v2-12345678"
    shutil.copytree(tiny_dataset.path, path)
    licences = ["CC-BY-SA-4.0", "CC-BY-SA-4.0", "CC-BY-NC-2.0", "CC0-1.0", "GFDL-1.3", "", "PDM-1.0", "CC-BY-ND-4.0"]
    rows = tuple(replace(row, licence=licence) for row, licence in zip(tiny_dataset.rows, licences, strict=True))
    records = [
        Provenance(
            "00.jpg",
            title="Kolo",
            author="Ana | Bo",
            page="https://commons.example/wiki/File:Kolo_(1).jpg",
            licence="CC-BY-SA-4.0",
            licence_url="https://creativecommons.org/licenses/by-sa/4.0/",
            attribution="Kolo by Ana, CC BY-SA 4.0",
            retrieved="2026-01-02T03:04:05Z",
            people="identifiable",
            consent="signed 2026-01-01",
        ),
        Provenance("01.jpg", title=HOSTILE, page="javascript:alert(1)", author=HOSTILE, people="none"),
    ]
    provenance.write(path, records)
    findings = (
        Finding("02.jpg", "dark", 0.2, 0.3, "little is to be seen", "lighten it", waived="it is night"),
        Finding("*", "few-sources", 8, 12, "few pictures teach little", "add some", level="error"),
        Finding(HOSTILE, "text", "0.1", "", "letters are learned", "crop", other="03.jpg"),
    )
    dropped = (Dropped("x.jpg", "not sharp", "blurred"), Dropped("y.jpg", "a child", "excluded"))
    config = {"resolution": 64, "rules": [{"find": "a", "replace": "b"}], "captioner": {"model.safetensors": "a" * 64}}
    return replace(tiny_dataset, path=path, rows=rows, findings=findings, dropped=dropped, config=config)


def test_it_opens_with_front_matter_that_is_yaml(dataset: Dataset) -> None:
    text = card(dataset, PROJECT)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "other" and head["pretty_name"] == "v2" and head["size_categories"] == ["n<1K"]
    one = replace(dataset, rows=tuple(replace(row, licence="CC-BY-SA-4.0") for row in dataset.rows))
    assert yaml.safe_load(card(one, PROJECT).split("---\n")[1])["license"] == "cc-by-sa-4.0"
    none = replace(dataset, rows=tuple(replace(row, licence="") for row in dataset.rows))
    assert yaml.safe_load(card(none, None).split("---\n")[1])["license"] == "unknown"


def test_it_says_what_is_in_it(dataset: Dataset) -> None:
    text = card(dataset, PROJECT)
    assert "8 training pictures of traditional folk costume" in text and 'Trigger word: "zolka"' in text
    assert "| to train on | 6 |" in text and "| held out | 2 |" in text and "| captions by hand | 8 |" in text
    assert "| captioner | model.safetensors aaaaaaaa |" in text
    assert dataset.id in text and rows_sha256(dataset.rows) in text
    of_class = replace(dataset, config={**dataset.config, "role": "class"})
    said = card(of_class, PROJECT)
    assert "of folk costume" in said and "regularisation" in said and "Trigger word" not in said


def test_terms_are_counted_and_no_verdict_is_given(dataset: Dataset) -> None:
    text = card(dataset, PROJECT)
    assert "| name the author (BY) | 4 |" in text
    assert "| pass derived pictures on under the same licence (SA) | 2 |" in text
    assert "| no commercial use (NC) | 1 |" in text
    assert "| pass on no derived pictures (ND); a crop is one | 1 |" in text
    assert "| terms that vez does not know | 1 |" in text
    assert "| no licence recorded: nothing is known to be allowed | 1 |" in text
    free = replace(dataset, rows=tuple(replace(row, licence="CC0-1.0") for row in dataset.rows))
    assert "None of the licences recorded asks for anything." in card(free, PROJECT)


def test_every_picture_has_its_source_or_says_that_none_is_known(dataset: Dataset) -> None:
    text = card(dataset, PROJECT)
    line = next(line for line in text.splitlines() if line.startswith("| 00.jpg | Kolo"))
    assert line == (
        "| 00.jpg | Kolo; Ana \\| Bo | <https://commons.example/wiki/File:Kolo_(1).jpg>; "
        "collected 2026-01-02T03:04:05Z | CC-BY-SA-4.0; <https://creativecommons.org/licenses/by-sa/4.0/>; "
        "Kolo by Ana, CC BY-SA 4.0 |"
    )
    assert "| 07.jpg | not recorded | not recorded | not recorded |" in text
    assert "| 00.jpg | identifiable | signed 2026-01-01 |" in text and "| not recorded | 6 |" in text


def test_findings_and_what_was_left_out_have_their_reasons(dataset: Dataset) -> None:
    text = card(dataset, PROJECT)
    assert "| few-sources | error | the whole set | 8 | few pictures teach little |" in text
    assert "| dark | waived | 02.jpg | 0.2 | accepted: it is night |" in text
    assert text.index("few-sources | error") < text.index("dark | waived")
    assert "| x.jpg | blurred: not sharp |" in text and "| y.jpg | excluded by hand: a child |" in text
    bare = card(replace(dataset, findings=(), dropped=()), PROJECT)
    assert bare.count("\nNothing.\n") == 2


def test_hostile_text_is_no_markup(dataset: Dataset) -> None:
    html = MARKDOWN.render(card(dataset, PROJECT).split("---\n", 2)[2])
    assert "<img" not in html and "<strong>" not in html and 'href="javascript' not in html
    assert "evil.example/" in html and 'href="http://evil' not in html
    assert html.count("<h2>") == 8 and "\x1b" not in html


def test_it_is_the_same_each_time_and_names_no_place(dataset: Dataset, tmp_path: Path) -> None:
    text = card(dataset, PROJECT)
    assert card(dataset, PROJECT) == text and str(tmp_path) not in text


def test_rows_are_told_apart_by_what_they_hold(dataset: Dataset) -> None:
    again = replace(dataset.rows[0], caption="zolka, other")
    assert rows_sha256(dataset.rows) != rows_sha256((again, *dataset.rows[1:]))
    assert len(rows_sha256(())) == 64


@given(st.text(max_size=60))
def test_any_text_reads_as_itself(text: str) -> None:
    (inline,) = [token for token in MARKDOWN.parse(f"x {plain(text)} x") if token.type == "inline"]
    assert {child.type for child in inline.children or []} <= {"text", "text_special"}
    shown = "".join(child.content for child in inline.children or [])
    assert shown == f"x {visible(' '.join(text.split()))} x"


def test_a_cell_never_breaks_its_table(dataset: Dataset) -> None:
    tokens = MARKDOWN.parse(card(dataset, PROJECT).split("---\n", 2)[2])
    columns: list[int] = []
    for token in tokens:
        if token.type == "tr_open":
            columns.append(0)
        elif token.type in ("td_open", "th_open"):
            columns[-1] += 1
    assert set(columns) == {2, 3, 4, 5}
