"""Training pictures cut at other places: what is frozen, and what reads the row alone."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.test_build import Breaks, Teller, built, configured, texture
from vez.config import Dataset as Recipe
from vez.dataset import build
from vez.dataset.card import card, rows_sha256
from vez.dataset.diff import as_text, diff
from vez.dataset.export import export
from vez.errors import StoreError
from vez.events import Event, Note
from vez.images.crop import Cut, apply
from vez.store import open_artifact, verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for i in range(5):
        texture(i, 180, 70).save(tmp_path / "images" / f"{i:02d}.png")
    texture(9, 70, 70).save(tmp_path / "images" / "square.png")
    return tmp_path


def notes(events: Sequence[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Note))


def test_one_place_is_the_dataset_of_today(folder: Path) -> None:
    plain, _ = built(configured(folder))
    same, _ = built(configured(folder, random_crops=1))
    assert same.id == plain.id and all(not row.moved for row in plain.rows) and not (plain.path / "moved").exists()
    assert "random_crops" not in plain.config and '"moved"' not in (plain.path / "rows.jsonl").read_text()


def test_other_places_are_frozen_beside_the_rows(folder: Path) -> None:
    plain, _ = built(configured(folder, held_out=2))
    teller = Teller()
    made, events = built(configured(folder, held_out=2, random_crops=4), teller)
    assert made.id != plain.id and teller.asked == 6, "no other place is captioned"
    assert [replace(row, moved=()) for row in made.rows] == list(plain.rows), "all else is as it was"
    assert all(not row.moved for row in made.held_out) and any(row.moved for row in made.train)
    names = set()
    for row in made.train:
        source = Image.open(folder / "images" / row.source).convert("RGB")
        for view in row.views:
            cut = Cut(view.crop, view.box, "auto", (view.width, view.height))
            assert np.array_equal(made.pixels(view), np.asarray(apply(source, cut)))
            assert replace(view, file=row.file, sha256=row.sha256, box=row.box, moved=row.moved) == row
            names.add(view.file)
        assert len({view.sha256 for view in row.views}) == len(row.views) <= 4
    lie = {path.relative_to(made.path).as_posix() for path in made.path.glob("moved/*")}
    assert lie == {name for name in names if name.startswith("moved/")}, "those of held-out pictures are gone"
    verify(open_artifact(made.path))
    assert "random_crops = 4: " in notes(events) and "of them at one" in notes(events)


def test_a_changed_place_is_an_error(folder: Path) -> None:
    made, _ = built(configured(folder, random_crops=2))
    view = next(row for row in made.train if row.moved).views[1]
    Image.new("RGB", (64, 64)).save(made.path / view.file)
    with pytest.raises(StoreError, match="was changed"):
        made.pixels(view)


def test_masks_move_along_and_names_never_meet(folder: Path) -> None:
    (folder / "masks").mkdir()
    for name in ("00", "00-1", "00-1.mask"):
        texture(3, 180, 70).save(folder / "images" / f"{name}.png")
        mask = np.zeros((70, 180), np.uint8)
        mask[:, 60:120] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    made, _ = built(configured(folder, random_crops=6, masks="masks", drop=["unreadable"]))
    views = [view for row in made.rows for view in row.views]
    files = [name for view in views for name in (view.file, view.mask) if name]
    assert len(set(files)) == len(files) and all((made.path / name).is_file() for name in files)
    row = next(row for row in made.rows if row.source == "00.png")
    begins = [np.flatnonzero(mask.max(axis=0))[0] for view in row.views if (mask := made.mask(view)) is not None]
    assert len(begins) == len(row.views) > 2
    for view, first in zip(row.views, begins, strict=True):
        assert first == pytest.approx(max(0, (60 - view.box[0]) * 64 / 70), abs=1.5)
    assert not made.rows[-1].mask or made.rows[-1].moved == (), "a picture without a mask has none elsewhere"


def test_a_build_that_was_cut_makes_the_same(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "images", tmp_path / "other" / "images")
    whole, _ = built(configured(tmp_path / "other", random_crops=3))
    with pytest.raises(KeyboardInterrupt):
        list(build(configured(folder, random_crops=3), "v1", captioner=Breaks()))
    (under_way,) = (folder / ".vez" / "datasets").glob(".*.partial")
    lost, torn = sorted(under_way.glob("moved/*.png"))[:3:2]
    lost.unlink()
    torn.write_bytes(torn.read_bytes()[:100])
    again, _ = built(configured(folder, random_crops=3))
    assert again.id == whole.id and open_artifact(again.path).files == open_artifact(whole.path).files


def test_comparison_card_and_export_say_it(folder: Path, tmp_path: Path) -> None:
    plain, _ = built(configured(folder, held_out=1))
    moved, _ = built(configured(folder, held_out=1, random_crops=3))
    changes = diff(plain, moved)
    count = sum(bool(row.moved) for row in moved.rows)
    assert not changes.added and not changes.removed and len(changes.changed) == count > 0
    assert {fact.aspect for change in changes.changed for fact in change.facts} == {"places"}
    assert "random_crops: – → 3" in as_text(changes) and "also cut at: no other place → " in as_text(changes)
    total = sum(len(row.moved) for row in moved.rows)
    assert f"| cut at other places besides | {total} |" in card(moved, None)
    assert "other places" not in card(plain, None) and rows_sha256(moved.rows) != rows_sha256(plain.rows)
    for layout in ("kohya", "imagefolder", "sidecars"):
        written = export(moved, tmp_path / layout, layout=layout)
        assert len([path for path in written if path.suffix == ".png"]) == len(moved.rows)
        assert "`random_crops`" in (tmp_path / layout / "README.md").read_text()


def test_its_bounds() -> None:
    for wrong in (0, 33):
        with pytest.raises(ValueError, match="random_crops"):
            Recipe.model_validate({"images": "images", "random_crops": wrong})
