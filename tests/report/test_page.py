import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from study_on_disk import HOSTILE, HOSTILE_FILE, tear

from vez.report.build import headline, report, shown
from vez.report.evidence import gather
from vez.report.pictures import Picture
from vez.report.view import words_of

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Every tag with its attributes, and the text by tag; fails on tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not {"style"} & set(self.open):
            self.text += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def text(study: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(study, tmp_path_factory.mktemp("out") / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Outline:
    return Outline(text)


@pytest.fixture
def own(study: Path, tmp_path: Path) -> Path:
    shutil.copytree(study.parents[1], tmp_path / "project")
    return tmp_path / "project" / "studies" / study.name


def test_the_same_artifacts_give_the_same_bytes(study: Path, tmp_path: Path, text: str) -> None:
    assert report(study, tmp_path / "deep" / "again.html").read_text(encoding="utf-8") == text


def test_it_is_one_file_that_needs_nothing(page: Outline) -> None:
    assert not page.open
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.of("img"))
    assert all(link["href"].startswith("#") for link in page.of("a"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]


def test_the_policy_admits_our_style_sheet_and_nothing_else(page: Outline, text: str) -> None:
    policy = next(meta["content"] for meta in page.of("meta") if "http-equiv" in meta)
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert len(style) == 1
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert (
        policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in style[0] and "@import" not in style[0]


def test_hostile_text_stays_text(page: Outline, text: str) -> None:
    assert "<script" not in text
    assert HOSTILE in page.text
    assert HOSTILE_FILE in page.text


def test_headings_go_down_one_step_at_a_time_and_pictures_have_words(page: Outline) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert all(image["alt"] for image in page.of("img"))
    assert all(svg.get("aria-label") or svg.get("aria-hidden") == "true" for svg in page.of("svg"))
    assert page.of("html")[0]["lang"] == "en"


def test_ids_are_unique_and_every_link_has_a_target(page: Outline) -> None:
    ids = [attributes["id"] for tag, attributes in page.tags if "id" in attributes and tag != "pattern"]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in page.of("a")} <= set(ids)


def test_the_verdict_comes_first_and_the_command_line_says_the_same(study: Path, page: Outline) -> None:
    assert "Use v2." in page.text
    assert page.text.index("Use v2.") < page.text.index("First the limits") < page.text.index("The grid")
    assert headline(study).startswith("Use v2.")


def test_what_is_missing_is_said_and_not_filled(page: Outline) -> None:
    assert "not measured" in page.text
    assert "stopped at step 17 of 40" in page.text
    assert "v3-0" in page.text
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", page.text)


def test_every_picture_is_on_the_page_and_the_total_is_printed(study: Path, page: Outline) -> None:
    drawn = len(list((study / "samples").rglob("*.png")))
    pictures = [image for image in page.of("img") if "seed" in image["alt"]]
    in_grid_and_test, representative, near, drifted = drawn + 4 * 2 * 2, 3, 2, 2 * 3
    assert len(pictures) == in_grid_and_test + representative + near + drifted
    assert re.search(r"\d+ embedded pictures, [\d.]+ [KM]iB", page.text)


def test_numbers_carry_n_an_interval_a_definition_and_a_command(page: Outline) -> None:
    for needle in (
        "8 prompts × 2 seeds",
        "95\u00a0% interval",
        "A photo depicts",
        "vez score thesis",
        "vez train thesis",
    ):
        assert needle in page.text, needle


def test_provenance_names_every_artifact_and_the_sha256_of_every_lora(study: Path, page: Outline) -> None:
    for file in study.glob("runs/*/lora.safetensors"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in page.text
    assert page.text.count("dataset") >= 5


def test_a_study_cut_short_still_has_a_report(own: Path, tmp_path: Path) -> None:
    tear(own)
    page = Outline(report(own, tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "no LoRA can be named" in page.text and "No scores were computed." in page.text
    shutil.rmtree(own.parents[1] / ".vez")
    shutil.rmtree(own / "samples")
    page = Outline(report(own, tmp_path / "b.html").read_text(encoding="utf-8"))
    assert "No pictures were drawn" in page.text
    shutil.rmtree(own / "runs" / "v1-0")
    assert report(own, tmp_path / "c.html").is_file()


def test_a_damaged_picture_is_a_gap_with_a_reason(own: Path, tmp_path: Path) -> None:
    (own / "samples" / "v2" / "snow-trigger-0.png").write_bytes(b"not a picture")
    page = Outline(report(own, tmp_path / "a.html").read_text(encoding="utf-8"))
    assert "could not be read" in page.text


def test_a_small_budget_leaves_pictures_out_and_says_how_many(study: Path, tmp_path: Path) -> None:
    page = Outline(report(study, tmp_path / "a.html", picture_budget=15_000).read_text(encoding="utf-8"))
    assert "left out: no room" in page.text
    assert re.search(r"\d+ more had no room", page.text)


def test_small_pictures_are_enlarged_by_whole_factors() -> None:
    assert shown(Picture("", 64, 64), 160) == (128, 128, "dots")
    assert shown(Picture("", 320, 160), 160) == (160, 80, "smooth")
    assert shown(Picture("", 64, 64), 104) == (128, 128, "dots")
    assert shown(Picture("", 120, 120), 160) == (120, 120, "smooth")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("tiny", "tiny"),
        ("maker/model-1.5", "maker/model-1.5"),
        ("/srv/me/base", "base"),
        ("D:\\models\\base", "base"),
    ],
)
def test_a_path_of_the_machine_is_not_passed_on(own: Path, written: str, read: str) -> None:
    manifest = own / "samples" / "manifest.json"
    row = json.loads(manifest.read_text(encoding="utf-8"))
    row["config"]["trained_on"] = written
    manifest.write_text(json.dumps(row), encoding="utf-8")
    assert words_of(gather(own))["base"] == read
