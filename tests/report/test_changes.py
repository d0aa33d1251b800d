import base64
import hashlib
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_page import Outline

from vez.dataset.diff import diff
from vez.dataset.rows import Dataset, Dropped
from vez.report.changes import MOST_SHOWN, page, sentence, write

HOSTILE = '<script>alert(1)</script> "quoted" & \x1b[31m \u202egpj.exe'


@pytest.fixture(scope="module")
def old(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("a") / "v1-11111111"
    shutil.copytree(tiny_dataset.path, path)
    return replace(tiny_dataset, path=path)


@pytest.fixture(scope="module")
def new(old: Dataset) -> Dataset:
    """Two pictures fewer, two more, one caption in other words, one held out, one cut anew, other settings."""
    path = old.path.with_name("v2-22222222")
    shutil.copytree(old.path, path)
    rows = list(old.rows[2:])
    rows[0] = replace(rows[0], caption=f"zolka, {HOSTILE}")
    rows[1] = replace(rows[1], split="held_out")
    rows[2] = replace(rows[2], sha256="cut anew", box=(1, 1, 60, 60))
    for i in (0, 1):
        added = replace(old.rows[i], sha256=f"new {i}", source=f"new-{i}.jpg", source_sha256=f"new {i}")
        rows.append(replace(added, caption=f"zolka, new {i} <b>{HOSTILE}</b>"))
    dropped = (
        Dropped("00.jpg", "its sharpest parts are soft", "blurred"),
        Dropped(f"{HOSTILE}.jpg", "hopelessly small", "tiny"),
    )
    config = {"resolution": 128, "pictures": 8}
    return replace(old, path=path, id="2" * 64, rows=tuple(rows), dropped=dropped, config=config)


@pytest.fixture(scope="module")
def text(old: Dataset, new: Dataset) -> str:
    return page(diff(old, new), old, new)


@pytest.fixture(scope="module")
def outline(text: str) -> Outline:
    return Outline(text)


def test_it_is_one_file_that_needs_nothing_and_admits_nothing(outline: Outline, text: str) -> None:
    assert not outline.open
    assert not {tag for tag, _ in outline.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert all(image["src"].startswith("data:image/webp;base64,") for image in outline.of("img"))
    assert all(link["href"].startswith("#") for link in outline.of("a"))
    assert not [
        name for _, attributes in outline.tags for name in attributes if name.startswith("on") or name == "style"
    ]
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(meta["content"] for meta in outline.of("meta") if "http-equiv" in meta)
    assert (
        policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "url(" not in style and "@import" not in style


def test_hostile_text_stays_text(outline: Outline, text: str) -> None:
    assert "<script" not in text and "<b>zolka" not in text
    assert not set(text) & set("\x1b\u202e")
    assert "<script>alert(1)</script>" in outline.text
    assert "\\u202egpj.exe" in outline.text


def test_the_first_words_say_what_is_different(old: Dataset, new: Dataset, outline: Outline) -> None:
    said = "v2 leaves out 2 pictures of v1, brings 2 new pictures and says 1 caption in other words."
    assert sentence(diff(old, new)) == said
    assert outline.text.index(said) < outline.text.index("Removed")
    for count in ("2removed", "2added", "1captions changed", "2otherwise changed", "1left out on arrival"):
        assert count in outline.text.replace("\n", ""), count


def test_removed_pictures_stand_under_the_check_that_left_them_out(outline: Outline) -> None:
    text = outline.text[outline.text.index("Removed") : outline.text.index("Added")]
    assert text.index("blurred") < text.index("its sharpest parts are soft") < text.index("00.jpg")
    assert text.index("no longer in the folder") < text.index("01.jpg")
    assert "blurred: its sharpest" not in text


def test_every_row_that_changed_has_its_picture(outline: Outline) -> None:
    alts = [image["alt"] for image in outline.of("img")]
    assert sorted(alts) == sorted(
        ["00.jpg", "01.jpg", "new-0.jpg", "new-1.jpg", "02.jpg", "03.jpg", "04.jpg, before", "04.jpg, after"]
    )


def test_captions_show_what_went_and_what_came(text: str) -> None:
    captions = text[text.index('id="captions"') :]
    assert "zolka, <del>a girl wearing zolka in the snow" not in captions  # row 2's, not row 0's
    assert re.search(r"zolka, <del>a doll in zolka, wood fence</del> <ins>&lt;script&gt;", captions)


def test_other_changes_and_settings_are_told(outline: Outline) -> None:
    assert "splittrain → held out" in outline.text and re.search(r"cropfull.* → full \[1, 1, 60, 60\]", outline.text)
    assert re.search(r"resolution\s*64\s*128", outline.text)


def test_headings_go_down_one_step_at_a_time_and_links_have_targets(outline: Outline) -> None:
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1 and all(later - earlier <= 1 for earlier, later in pairwise(levels))
    ids = [attributes["id"] for tag, attributes in outline.tags if "id" in attributes and tag != "pattern"]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in outline.of("a")} <= set(ids)
    assert all(image["alt"] for image in outline.of("img"))


def test_the_same_bytes_each_time_and_a_whole_file(old: Dataset, new: Dataset, text: str, tmp_path: Path) -> None:
    to = write(old, new, tmp_path / "deep" / "changes.html")
    assert to.read_text(encoding="utf-8") == text
    assert [p.name for p in to.parent.iterdir()] == ["changes.html"]


def test_nothing_changed_is_a_page_too(old: Dataset) -> None:
    outline = Outline(page(diff(old, old), old, old))
    assert "v1 00" not in outline.text and f"v1 {old.id[:8]} is the same as v1 {old.id[:8]}." in outline.text
    assert not outline.of("img") and "8the same in both" in outline.text


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"rows": 1}, "v2 has 1 picture of v1 in another form."),
        ({"config": {"resolution": 1}}, "v2 is made with other settings (1)."),
        ({"dropped": (Dropped("x.jpg", "y"),)}, "v2 left out 1 new picture at the door."),
    ],
)
def test_the_sentence_for_small_changes(old: Dataset, part: dict, said: str) -> None:
    if "rows" in part:
        part = {"rows": (replace(old.rows[0], split="held_out"), *old.rows[1:])}
    other = replace(old, path=old.path.with_name("v2-22222222"), **({"config": old.config} | part))
    assert sentence(diff(old, other)) == said


def test_a_picture_that_is_gone_or_outside_is_a_gap(old: Dataset, new: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "v2-22222222"
    shutil.copytree(new.path, path)
    (path / new.rows[-1].file).unlink()
    rows = (*new.rows[:-2], replace(new.rows[-2], file="../../secret.png"), new.rows[-1])
    there = replace(new, path=path, rows=rows)
    outline = Outline(page(diff(old, there), old, there))
    assert "could not be read" in outline.text and "not drawn" in outline.text


def test_many_pictures_stay_within_the_size(old: Dataset, tmp_path: Path) -> None:
    """Also where a picture stands on the page more than once."""
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), dtype=np.uint8)
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    rows = [
        replace(row, file=f"images/{i % 8}.png", source=f"{i}.jpg", sha256=f"{i}", source_sha256=f"s{i}")
        for i, row in enumerate(old.rows[:1] * 900)
    ]
    many = replace(old, path=tmp_path, rows=tuple(replace(row, caption="x, " * 4000) for row in rows))
    none = replace(old, rows=())
    text = page(diff(none, many), none, many)
    assert 1_000_000 < len(text.encode()) < 5_000_000
    outline = Outline(text)
    assert f"And {900 - MOST_SHOWN} pictures more" in outline.text and "one sign is 10 pictures" in outline.text


def test_a_small_budget_leaves_pictures_out_and_says_so(old: Dataset, new: Dataset) -> None:
    outline = Outline(page(diff(old, new), old, new, picture_budget=3000))
    assert "left out: no room" in outline.text and re.search(r"\d more had no room", outline.text)
