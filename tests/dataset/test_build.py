import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from images.photographs import FOLDER, needs_photographs
from vez import dataset
from vez.config import Checks, Config, Project
from vez.config import Dataset as Recipe
from vez.dataset import Dataset, Row, inspect
from vez.errors import ConfigError, DataError, StoreError
from vez.events import Done, Event, Item, Note, Stage
from vez.images import provenance
from vez.images.findings import Finding, open_errors
from vez.images.pixels import pixels_sha256
from vez.store import open_artifact, verify

PROJECT = Project(base="tiny", trigger="zolka", noun="coat", describes="a red coat")


class Teller:
    """A captioner that says how bright a picture is, and counts what it was asked."""

    identity = "teller"

    def __init__(self) -> None:
        self.asked = 0

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        self.asked += len(images)
        return [f"a coat of brightness {int(np.asarray(image).mean())}" for image in images]


def texture(seed: int, width: int = 90, height: int = 70) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST)


def fill(folder: Path, count: int = 6) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        texture(i).save(folder / f"{i:02d}.{('png', 'jpg', 'webp')[i % 3]}")


def configured(root: Path, **recipe: object) -> Config:
    made = Recipe.model_validate({"images": "images", "resolution": 64, **recipe})
    return Config(project=PROJECT, dataset={"v1": made}, root=root)


def built(config: Config, teller: Teller | None = None) -> tuple[Dataset, list[Event]]:
    events = list(dataset.build(config, "v1", captioner=teller or Teller()))
    done = events[-1]
    assert isinstance(done, Done)
    return dataset.load(done.artifact_path), events


def looked_at(config: Config) -> list[Finding]:
    """The findings that `inspect` returns."""
    found: list[Finding] = []

    def whole() -> Iterator[Event]:
        found.extend((yield from inspect(config, "v1")))

    assert [event for event in whole() if isinstance(event, Item)]
    return found


def files_of(folder: Path) -> dict[str, tuple[str, int]]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in paths}


def test_pictures_become_a_dataset(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    before = files_of(tmp_path / "images")
    made, events = built(configured(tmp_path, held_out=2))
    assert made.path.parent == tmp_path / ".vez" / "datasets" and made.path.name == f"v1-{made.id[:8]}"
    assert [row.source for row in made.rows] == [f"{i:02d}.{('png', 'jpg', 'webp')[i % 3]}" for i in range(6)]
    assert (len(made.train), len(made.held_out), made.resolution) == (4, 2, 64)
    for row in made.rows:
        pixels = made.pixels(row)
        assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
        assert row.sha256 == pixels_sha256(Image.fromarray(pixels))
        assert row.source_sha256 == hashlib.sha256((tmp_path / "images" / row.source).read_bytes()).hexdigest()
        assert row.caption == f"zolka, {row.machine}" and not row.hand
    assert [e.name for e in events if isinstance(e, Stage)] == ["check", "caption"]
    verify(open_artifact(made.path))
    assert files_of(tmp_path / "images") == before


def test_a_second_build_does_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    first, _ = built(configured(tmp_path))
    before, teller = files_of(first.path), Teller()
    second, events = built(configured(tmp_path), teller)
    assert second.id == first.id and teller.asked == 0 and len(events) == 2 and files_of(first.path) == before


def test_the_same_pictures_elsewhere_give_the_same_dataset(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        fill(tmp_path / name / "images")
        made.append(built(configured(tmp_path / name, held_out=2))[0])
    assert made[0].id == made[1].id and made[0].rows == made[1].rows
    assert open_artifact(made[0].path).files == open_artifact(made[1].path).files


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 56 + 16},
        {"held_out": 1},
        {"prefix": False},
        {"rules": [{"find": "coat", "replace": "{trigger}"}]},
        {"checks": {"blurred": 0.9}},
        {"drop": ["unreadable"]},
        {"captioner": "some/other"},
        {"crops": ["full", "upper"]},
        {"buckets": "kohya"},
        {"background": "black"},
        {"masks": "alpha"},
        {"tags": ["a tag"]},
        {"override": {"00.png": {"prefix": False}}},
        {"exclude": [{"file": "01.jpg", "reason": "mine"}]},
        {"waive": [{"check": "blurred", "reason": "soft on purpose"}]},
    ],
)
def test_every_setting_makes_another_dataset(tmp_path: Path, change: dict[str, object]) -> None:
    fill(tmp_path / "images", 3)
    assert built(configured(tmp_path))[0].id != built(configured(tmp_path, **change))[0].id


def test_another_picture_or_hand_caption_makes_another_dataset(tmp_path: Path) -> None:
    fill(tmp_path / "images", 3)
    (tmp_path / "captions").mkdir()
    config = configured(tmp_path, captions="captions")
    ids = [built(config)[0].id]
    texture(9).save(tmp_path / "images" / "09.png")
    ids.append(built(config)[0].id)
    (tmp_path / "captions" / "09.txt").write_text("zolka by hand")
    ids.append(built(config)[0].id)
    assert len(set(ids)) == 3


def test_hand_captions_win_and_are_recorded(tmp_path: Path) -> None:
    fill(tmp_path / "images", 5)
    captions = tmp_path / "captions"
    captions.mkdir()
    (captions / "00.txt").write_text("\ufeffzolka,  a girl\nat night \n", encoding="utf-8")
    (captions / "01.txt").write_text("a girl in a coat")
    (captions / "02.txt").write_text(" \n")
    (captions / "03.txt").write_bytes(b"\xff\xfe\xff")
    (captions / "99.txt").write_text("nobody")
    teller = Teller()
    made, _ = built(configured(tmp_path, captions="captions", rules=[{"find": "girl", "replace": "boy"}]), teller)
    rows = {row.source[:2]: row for row in made.rows}
    assert (rows["00"].caption, rows["00"].hand, rows["00"].machine) == ("zolka, a girl at night", True, None)
    assert (rows["01"].caption, rows["01"].hand) == ("a girl in a coat", True)  # as it stands
    assert [rows[stem].hand for stem in ("02", "03", "04")] == [False] * 3 and teller.asked == 3
    remarks = [(f.file, f.check) for f in made.findings if f.check.startswith("caption")]
    assert remarks == [("02.txt", "caption-missing"), ("03.txt", "caption-encoding"), ("99.txt", "caption-unused")]


def test_no_captioner_is_loaded_where_every_caption_is_by_hand(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    (tmp_path / "captions").mkdir()
    for i in range(2):
        (tmp_path / "captions" / f"{i:02d}.txt").write_text("zolka")
    config = configured(tmp_path, captions="captions", captioner="nobody/nothing")
    assert isinstance(list(dataset.build(config, "v1"))[-1], Done)


def test_broken_files_are_findings_and_their_pictures_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    fill(folder, 3)
    whole = (folder / "01.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.png").write_bytes(b"<html>")
    (folder / "phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic")
    (folder / "copy.jpg").write_bytes(whole)
    (folder / "notes.txt").write_text("mine")
    (folder / "._00.png").write_bytes(b"mac")
    (folder / "folder.jpg").mkdir()
    made, events = built(configured(tmp_path))
    assert [row.source for row in made.rows] == ["00.png", "01.jpg", "02.webp"]
    reasons = {one.file: one.reason for one in made.dropped}
    assert set(reasons) == {"cut.jpg", "empty.png", "page.png", "phone.heic", "copy.jpg"}
    assert "01.jpg" in reasons["copy.jpg"] and reasons["phone.heic"] and "cut short" in reasons["cut.jpg"]
    assert sorted(p.name for p in (made.path / "images").iterdir()) == ["00.png", "01.png", "02.png"]
    assert sum(isinstance(e, Note) and e.text.startswith("left out") for e in events) == 5
    assert {f.check for f in made.findings} == {"unreadable", "exact-duplicate"}
    assert (folder / "cut.jpg").exists()


def test_what_is_dropped_is_chosen_by_the_configuration(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    texture(7, 40, 40).save(tmp_path / "images" / "small.png")
    assert len(built(configured(tmp_path))[0].rows) == 3
    made, _ = built(configured(tmp_path, drop=["tiny"]))
    assert [(one.file, one.check) for one in made.dropped] == [("small.png", "tiny")] and len(made.rows) == 2


def test_one_of_three_copies_stays(tmp_path: Path) -> None:
    fill(tmp_path / "images", 1)
    for name in ("a.png", "b.png", "c.png"):
        texture(5).save(tmp_path / "images" / name)
    assert [row.source for row in built(configured(tmp_path))[0].rows] == ["00.png", "a.png"]


def test_of_two_duplicates_the_captioned_or_else_the_larger_one_stays(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "captions").mkdir()
    for i, name in enumerate(("a", "b")):
        texture(i, 90, 90).save(tmp_path / "images" / f"{name}-small.png")
        texture(i, 180, 180).save(tmp_path / "images" / f"{name}-zlarge.png")
    (tmp_path / "captions" / "a-small.txt").write_text("zolka")
    made, _ = built(configured(tmp_path, captions="captions", drop=["near-duplicate"]))
    assert [row.source for row in made.rows] == ["a-small.png", "b-zlarge.png"]


def test_nothing_held_out_has_a_copy_in_training(tmp_path: Path) -> None:
    fill(tmp_path / "images", 5)
    texture(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "images" / "flip.jpg", quality=90)
    made, _ = built(configured(tmp_path, held_out=4))
    assert {row.source for row in made.train} == {"00.png", "flip.jpg"}
    with pytest.raises(DataError, match="held_out = 5, but the 6 pictures come from 5 sources"):
        built(configured(tmp_path, held_out=5))


def test_equal_stems_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    texture(0).save(tmp_path / "images" / "a.png")
    texture(1).save(tmp_path / "images" / "a.jpg")
    made, _ = built(configured(tmp_path))
    assert [row.file for row in made.rows] == ["images/a-jpg.png", "images/a-png.png"]


class Breaks(Teller):
    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        raise KeyboardInterrupt


def test_a_cut_build_leaves_no_dataset_and_is_made_again(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    with pytest.raises(KeyboardInterrupt):
        list(dataset.build(configured(tmp_path), "v1", captioner=Breaks()))
    store = tmp_path / ".vez" / "datasets"
    assert not [p for p in store.iterdir() if not p.name.startswith(".")]
    cut, _ = built(configured(tmp_path))
    fill(tmp_path / "other" / "images")
    whole, _ = built(configured(tmp_path / "other"))
    assert open_artifact(cut.path).files == open_artifact(whole.path).files
    assert not [p for p in store.iterdir() if p.name.endswith(".partial")]


def test_a_build_closed_half_way_can_be_made_again_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    events = dataset.build(configured(tmp_path), "v1", captioner=Teller())
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert len(built(configured(tmp_path))[0].rows) == 6


def test_a_killed_build_is_made_again(tmp_path: Path) -> None:
    fill(tmp_path / "images")
    code = """if True:
        import os, sys; from pathlib import Path
        from vez import dataset; from vez.config import Config, Project
        class Dies:
            identity = "dies"
            def caption(self, images): os.kill(os.getpid(), 9)
        project = Project(base="tiny", trigger="zolka", noun="coat", describes="a red coat")
        recipe = {"images": "images", "resolution": 64}
        config = Config(project=project, dataset={"v1": recipe}, root=Path(sys.argv[1]))
        list(dataset.build(config, "v1", captioner=Dies()))
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert killed.returncode == -9
    made, _ = built(configured(tmp_path))
    assert len(made.rows) == 6
    assert [p.name for p in made.path.parent.iterdir() if p.name.endswith(".partial")] == []


@pytest.mark.parametrize("missing", ["images/00.png", "rows.jsonl", "manifest.json"])
def test_a_damaged_dataset_is_made_again(tmp_path: Path, missing: str) -> None:
    fill(tmp_path / "images", 2)
    first, _ = built(configured(tmp_path))
    (first.path / missing).unlink()
    if missing == "manifest.json":  # nothing says any more that this folder is vez's to replace
        with pytest.raises(StoreError, match="in the way"):
            built(configured(tmp_path))
    else:
        assert built(configured(tmp_path))[0] == first


def test_a_changed_training_picture_is_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "images", 1)
    made, _ = built(configured(tmp_path))
    Image.new("RGB", (64, 64)).save(made.path / made.rows[0].file)
    with pytest.raises(StoreError, match="was changed"):
        made.pixels(made.rows[0])


@pytest.mark.parametrize("text", ["{", "[]", '{"file": "a"}', '{"boo": 1}'])
def test_broken_rows_are_an_error(tmp_path: Path, text: str) -> None:
    fill(tmp_path / "images", 1)
    made, _ = built(configured(tmp_path))
    (made.path / "rows.jsonl").write_text(text)
    with pytest.raises(StoreError, match="cannot be read as a dataset"):
        dataset.load(made.path)


def test_what_no_dataset_can_be_made_of(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        built(configured(tmp_path))
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        built(configured(tmp_path))
    (tmp_path / "images" / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="no picture is left"):
        built(configured(tmp_path))
    with pytest.raises(ConfigError, match=r"no \[dataset.v2\]; known are: v1"):
        list(dataset.build(configured(tmp_path), "v2"))
    with pytest.raises(DataError, match="no folder"):
        built(configured(tmp_path, captions="captions"))


def test_inspect_makes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    (tmp_path / "images" / "broken.png").write_bytes(b"x")
    assert [(f.file, f.check) for f in looked_at(configured(tmp_path))] == [("broken.png", "unreadable")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images"]


def test_rows_are_plain_json_lines(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    made, _ = built(configured(tmp_path, checks=Checks(blurred=0)))
    rows = [json.loads(line) for line in (made.path / "rows.jsonl").read_text().splitlines()]
    always = [field.name for field in fields(Row) if field.name != "moved"]  # only rows that have other places say so
    assert list(rows[0]) == always and rows[0]["box"] == [10, 0, 80, 70]
    with Image.open(tmp_path / "images" / rows[0]["source"]) as picture:
        assert rows[0]["upright"] == picture.width
    assert [f.check for f in made.findings] == ["blurred", "blurred"]


def test_a_picture_left_out_by_hand_keeps_its_reason(tmp_path: Path) -> None:
    fill(tmp_path / "images", 3)
    made, events = built(configured(tmp_path, exclude=[{"file": "01.jpg", "reason": "another coat"}]))
    assert [(one.file, one.check, one.reason) for one in made.dropped] == [("01.jpg", "excluded", "another coat")]
    assert [row.source for row in made.rows] == ["00.png", "02.webp"]
    assert Note("left out 01.jpg: another coat") in events


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"exclude": [{"file": "01.jpeg", "reason": "x"}]}, "exclude names '01.jpeg'.*did you mean '01.jpg'"),
        ({"override": {"zz.gif": {}}}, "override names 'zz.gif'.*name a picture as it is called there"),
        ({"waive": [{"file": "1.jpg", "check": "tiny", "reason": "x"}]}, "waive names '1.jpg'"),
    ],
)
def test_a_name_that_no_picture_has_is_refused(tmp_path: Path, recipe: dict[str, object], said: str) -> None:
    fill(tmp_path / "images", 3)
    with pytest.raises(ConfigError, match=said):
        built(configured(tmp_path, **recipe))


def test_a_waived_finding_drops_nothing_and_stays_on_record(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    texture(7, 40, 40).save(tmp_path / "images" / "small.png")
    waiver = {"file": "small.png", "check": "tiny", "reason": "the only one from behind"}
    made, _ = built(configured(tmp_path, drop=["tiny"], waive=[waiver]))
    assert len(made.rows) == 3 and not made.dropped
    assert [(f.file, f.check, f.waived) for f in made.findings] == [("small.png", "tiny", "the only one from behind")]


def test_crops_are_training_pictures_of_their_own_and_never_cross_the_split(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        texture(i, 200, 300).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "0.upper.txt").write_text("zolka from above")
    config = configured(tmp_path, crops=["full", "upper", "lower"], held_out=1, captions="captions")
    made, _ = built(config)
    of = {(row.source, row.crop): row for row in made.rows}
    assert len(made.held_out) == 1 and made.held_out[0].crop == "full"
    held = made.held_out[0].source
    assert {crop for source, crop in of if source == held} == {"full"}
    rest = {source for source, _ in of} - {held}
    assert all((source, "upper") in of and (source, "lower") in of for source in rest)
    for row in made.rows:
        assert row.scale <= 1 and made.pixels(row).shape == (64, 64, 3)
        assert row.file == f"images/{row.source[0]}{'' if row.crop == 'full' else '.' + row.crop}.png"
    if held != "0.png":
        assert (of["0.png", "upper"].caption, of["0.png", "upper"].hand) == ("zolka from above", True)
    above, below = (of[sorted(rest)[0], crop].box for crop in ("upper", "lower"))
    assert above[1] < below[1]


def test_buckets_keep_a_picture_s_shape(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    texture(0, 128, 128).save(tmp_path / "images" / "square.png")
    texture(1, 240, 120).save(tmp_path / "images" / "wide.png")
    texture(2, 120, 240).save(tmp_path / "images" / "tall.png")
    made, _ = built(configured(tmp_path, buckets="kohya", resolution=128))
    shapes = {row.source: (row.width, row.height) for row in made.rows}
    assert shapes["square.png"] == (128, 128)
    assert shapes["wide.png"][0] > shapes["wide.png"][1] and shapes["tall.png"] == shapes["wide.png"][::-1]
    for row in made.rows:
        assert made.pixels(row).shape == (row.height, row.width, 3)


def test_boxes_by_hand_are_kept_by_a_rebuild(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    (tmp_path / "images" / "boxes.toml").write_text('["00.png"]\nfull = [0, 0, 64, 64]\n')
    made, _ = built(configured(tmp_path))
    assert (made.rows[0].box, made.rows[0].boxed) == ((0, 0, 64, 64), "hand")
    again, _ = built(configured(tmp_path, prefix=False))
    assert again.id != made.id and again.rows[0].box == (0, 0, 64, 64)
    (tmp_path / "images" / "boxes.toml").write_text('["00.png"]\nfull = [1, 0, 65, 64]\n')
    moved, _ = built(configured(tmp_path))
    assert moved.id != made.id and moved.rows[0].box == (1, 0, 65, 64)


def test_masks_go_along_cut_like_their_pictures(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    picture = texture(0, 120, 80).convert("RGBA")
    alpha = np.zeros((80, 120), np.uint8)
    alpha[:, :60] = 255
    picture.putalpha(Image.fromarray(alpha))
    picture.save(tmp_path / "images" / "0.png")
    made, _ = built(configured(tmp_path, masks="alpha"))
    (row,) = made.rows
    mask = made.mask(row)
    assert mask is not None and mask.shape == (64, 64) and row.mask == "masks/0.png"
    left, _, right, _ = row.box
    share = np.clip((60 - left) / (right - left), 0, 1)
    assert mask.mean() / 255 == pytest.approx(share, abs=0.05)
    assert made.mask(Row(**{**row.__dict__, "mask": ""})) is None


def test_provenance_is_frozen_and_keeps_one_page_on_one_side(tmp_path: Path) -> None:
    fill(tmp_path / "images", 6)
    page = "https://example.org/series"
    records = [
        provenance.Provenance(f"{i:02d}.{('png', 'jpg', 'webp')[i % 3]}", page=page if i < 4 else "", licence="CC0-1.0")
        for i in range(6)
    ]
    provenance.write(tmp_path / "images", records)
    made, _ = built(configured(tmp_path, held_out=2))
    assert {row.source[:2] for row in made.held_out} == {"04", "05"}, "the series of four cannot be divided"
    assert {row.group for row in made.train} == {"00.png"} and made.rows[0].licence == "CC0-1.0"
    assert set(made.provenance) == {row.source for row in made.rows}
    with pytest.raises(DataError, match="held_out = 3"):
        built(configured(tmp_path, held_out=3))


def test_the_card_lies_beside_the_rows(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    made, _ = built(configured(tmp_path))
    card = (made.path / "card.md").read_text(encoding="utf-8")
    assert made.id[:8] in card and "zolka" in card


def test_what_is_left_out_still_keeps_its_copies_on_one_side(tmp_path: Path) -> None:
    """b is a's copy and c is from b's page: b goes, and a and c are one source all the same."""
    fill(tmp_path / "images", 3)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        texture(seed).save(tmp_path / "images" / f"{name}.png")
    page = "https://example.org/1"
    provenance.write(tmp_path / "images", [provenance.Provenance(f"{name}.png", page=page) for name in "bc"])
    made, _ = built(configured(tmp_path, held_out=3))
    assert [one.file for one in made.dropped] == ["b.png"]
    assert {row.source: row.group for row in made.rows if row.source in ("a.png", "c.png")} == {
        "a.png": "a.png",
        "c.png": "a.png",
    }
    assert {row.source for row in made.train} == {"a.png", "c.png"}


@pytest.mark.parametrize(
    "leaves",
    [
        {"exclude": [{"file": "a.png", "reason": "mine"}]},
        {"drop": ["exact-duplicate", "tiny"], "resolution": 96},
    ],
)
def test_copies_of_a_picture_that_goes_are_compared_with_each_other(tmp_path: Path, leaves: dict[str, object]) -> None:
    """The excluded or dropped one is the copy, whatever it is called; among the others the first stays."""
    fill(tmp_path / "images", 1)
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "a.txt").write_text("zolka")
    large = texture(5).resize((180, 140), Image.Resampling.NEAREST)
    for name in "bc":
        large.save(tmp_path / "images" / f"{name}.png")
    texture(5).save(tmp_path / "images" / "a.png")
    texture(0, 180, 140).save(tmp_path / "images" / "00.png")
    config = configured(tmp_path, captions="captions", **leaves)
    made, _ = built(config)
    assert [row.source for row in made.rows] == ["00.png", "b.png"]
    still_open = [(f.file, f.check) for f in made.findings if f.is_open]
    assert still_open == []
    assert [(f.file, f.check) for f in looked_at(config) if f.is_open] == []


def test_a_finding_about_a_copy_of_what_is_left_out_is_settled(tmp_path: Path) -> None:
    """c repeats b alone, b repeats a: b goes, and nothing is left to do about c."""
    (tmp_path / "images").mkdir()
    page = [provenance.Provenance("b.png", page="https://example.org/1")]
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        texture(seed).save(tmp_path / "images" / f"{name}.png")
    provenance.write(tmp_path / "images", [*page, provenance.Provenance("c.png", page="https://example.org/1")])
    made, _ = built(configured(tmp_path))
    assert {(f.file, f.other, f.is_open) for f in made.findings if f.check == "same-source"} == {
        ("c.png", "b.png", False)
    }


@pytest.mark.parametrize("crops", [["upper", "full"], ["lower", "upper", "full"]])
def test_a_held_out_picture_is_whole_in_whatever_order_the_crops_are_named(tmp_path: Path, crops: list[str]) -> None:
    (tmp_path / "images").mkdir()
    for i in range(3):
        texture(i, 200, 300).save(tmp_path / "images" / f"{i}.png")
    made, _ = built(configured(tmp_path, crops=crops, held_out=1))
    assert [row.crop for row in made.held_out] == ["full"] and len(made.train) == 2 * len(crops)
    assert not {row.source for row in made.held_out} & {row.source for row in made.train}
    assert sorted(p.name for p in (made.path / "images").iterdir()) == sorted(row.file[7:] for row in made.rows)


def test_a_picture_that_no_crop_can_be_made_of_is_left_out_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(3):
        texture(i, 200, 300).save(tmp_path / "images" / f"{i}.png")
    texture(7, 64, 64).save(tmp_path / "images" / "small.png")
    made, _ = built(configured(tmp_path, crops=["upper"], held_out=1))
    assert [(one.file, one.check) for one in made.dropped] == [("small.png", "tiny")]
    assert "to cut upper from it" in made.dropped[0].reason
    assert (len(made.train), len(made.held_out)) == (2, 1)


def test_pictures_of_one_stem_can_be_captioned_apart(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "captions").mkdir()
    for i, name in enumerate(("a.png", "a.jpg")):
        texture(i).save(tmp_path / "images" / name)
    (tmp_path / "captions" / "a.txt").write_text("zolka of both")
    both, _ = built(configured(tmp_path, captions="captions"))
    assert [row.caption for row in both.rows] == ["zolka of both"] * 2
    (tmp_path / "captions" / "a-jpg.txt").write_text("zolka of the photograph")
    apart, _ = built(configured(tmp_path, captions="captions"))
    assert {row.source: row.caption for row in apart.rows} == {
        "a.jpg": "zolka of the photograph",
        "a.png": "zolka of both",
    }
    assert not apart.findings


def test_a_picture_s_caption_is_not_another_picture_s_crop_s(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "captions").mkdir()
    for i, name in enumerate(("a.jpg", "a.upper.png")):
        texture(i, 200, 300).save(tmp_path / "images" / name)
    (tmp_path / "captions" / "a.upper.txt").write_text("zolka by hand")
    made, _ = built(configured(tmp_path, captions="captions", crops=["full", "upper"]))
    assert len(made.rows) == 4 and len({row.file.lower() for row in made.rows}) == 4
    assert [(row.source, row.crop) for row in made.rows if row.hand] == [("a.upper.png", "full")]


def test_captions_of_crops_that_are_not_made_are_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "captions").mkdir()
    for i in range(3):
        texture(i, 200, 300).save(tmp_path / "images" / f"{i}.png")
        for crop in ("upper", "lower"):
            (tmp_path / "captions" / f"{i}.{crop}.txt").write_text(f"zolka {crop}")
    (tmp_path / "captions" / "9.upper.txt").write_text("nobody's")
    made, _ = built(configured(tmp_path, crops=["full", "upper"], captions="captions", held_out=1))
    assert [(f.file, f.check) for f in made.findings] == [("9.upper.txt", "caption-unused")]
    assert sum(row.hand for row in made.rows) == 2


def test_a_box_for_a_picture_that_is_not_there_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    (tmp_path / "images" / "boxes.toml").write_text('["00.jpg"]\nfull = [0, 0, 64, 64]\n')
    for stage in (built, looked_at):
        with pytest.raises(ConfigError, match=r"boxes.toml names '00.jpg'.*did you mean '01.jpg'"):
            stage(configured(tmp_path))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    odd = tmp_path / "images" / os.fsdecode(b"caf\xe9.png")
    try:
        odd.write_bytes((tmp_path / "images" / "00.png").read_bytes())
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(DataError, match=r"caf\\.*is not UTF-8 text; rename the file") as error:
        built(configured(tmp_path))
    str(error.value).encode()
    odd.unlink()
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / os.fsdecode(b"caf\xe9.txt")).write_text("zolka")
    with pytest.raises(DataError, match="rename the file"):
        built(configured(tmp_path, captions="captions"))


def with_masks(root: Path) -> Config:
    fill(root / "images", 3)
    (root / "masks").mkdir()
    for i in range(2):
        Image.new("L", (90, 70), 255).save(root / "masks" / f"{i:02d}.png")
    return configured(root, masks="masks")


def test_masks_beside_pictures_make_the_dataset_and_no_other_file_does(tmp_path: Path) -> None:
    config = with_masks(tmp_path)
    first, events = built(config)
    assert [row.mask for row in first.rows] == ["masks/00.png", "masks/01.png", ""]
    assert "1 of 3 pictures have no mask in masks" in str(events) and "02.webp" in str(events)
    (tmp_path / "masks" / "stray.png").write_bytes(b"of a picture elsewhere")
    (tmp_path / "images" / "notes.txt").write_text("mine")
    (tmp_path / "images" / "sub").mkdir()
    assert built(config)[0].id == first.id
    Image.new("L", (90, 70), 254).save(tmp_path / "masks" / "00.png")
    second, events = built(config)
    assert second.id != first.id and "1 of the masks in masks, first stray.png" in str(events)
    (tmp_path / "masks" / "01.png").unlink()
    assert built(config)[0].id not in {first.id, second.id}
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    (tmp_path / "masks").rmdir()
    with pytest.raises(DataError, match=r"there is no folder .*masks"):
        built(config)


def test_provenance_makes_another_dataset(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    ids = [built(configured(tmp_path))[0].id]
    for author in ("Ana", "Mira"):
        provenance.write(tmp_path / "images", [provenance.Provenance("00.png", author=author)])
        ids.append(built(configured(tmp_path))[0].id)
    assert len(set(ids)) == 3


@pytest.mark.parametrize("check", ["caption-long", "few-sources", "one-pose"])
def test_accepting_what_lint_finds_makes_no_other_dataset(tmp_path: Path, check: str) -> None:
    """Or every LoRA would be trained again for it; lint keeps such waivers itself."""
    fill(tmp_path / "images", 2)
    first, _ = built(configured(tmp_path))
    assert built(configured(tmp_path, waive=[{"check": check, "reason": "known"}]))[0].id == first.id
    hand = built(configured(tmp_path, waive=[{"check": "caption-unused", "reason": "known"}]))[0]
    assert hand.id != first.id


@pytest.mark.parametrize("what", ["images/boxes.toml", "images/provenance.jsonl", "masks/00.png"])
def test_what_changes_while_it_is_used_is_noticed(tmp_path: Path, what: str) -> None:
    class Meddles(Teller):
        def caption(self, images: Sequence[Image.Image]) -> list[str]:
            if what.startswith("masks"):
                Image.new("L", (90, 70), 100).save(tmp_path / what)
            else:
                new = {"boxes": '["00.png"]\nfull = [0, 0, 64, 64]\n', "prove": '{"file": "00.png", "author": "A"}\n'}
                (tmp_path / what).write_text(new[what[7:12]])
            return super().caption(images)

    config = with_masks(tmp_path)
    with pytest.raises(DataError, match="changed while the dataset was being made; build again"):
        built(config, Meddles())
    assert len(built(config)[0].rows) == 3


def test_two_builds_of_one_dataset_do_not_meet(tmp_path: Path) -> None:
    fill(tmp_path / "images", 3)
    first = dataset.build(configured(tmp_path), "v1", captioner=Teller())
    next(first)
    with pytest.raises(StoreError, match="being made by another process"):
        built(configured(tmp_path))
    assert isinstance(list(first)[-1], Done)


def test_class_pictures_are_never_called_by_the_trigger(tmp_path: Path) -> None:
    fill(tmp_path / "images", 3)
    made, _ = built(configured(tmp_path, role="class", rules=[{"find": "coat", "replace": "{noun}"}], prefix=True))
    assert len(made.train) == 3 and not made.held_out
    assert all(row.caption == row.machine and "zolka" not in row.caption for row in made.rows)
    with pytest.raises(ValueError, match="class pictures judge nothing"):
        configured(tmp_path, role="class", held_out=1)


def test_a_hostile_name_does_not_reach_the_terminal_raw(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    (tmp_path / "images" / "\x1b[2J.png").write_bytes(b"no picture")
    _, events = built(configured(tmp_path))
    assert [e.text for e in events if isinstance(e, Note) and "left out" in e.text and "\\x1b[2J.png" in e.text]
    assert not any("\x1b" in e.text for e in events if isinstance(e, Note))


def test_nothing_is_enlarged_without_a_word(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    (tmp_path / "images" / "boxes.toml").write_text('["00.png"]\nfull = [0, 0, 32, 32]\n')
    made, events = built(configured(tmp_path))
    assert [row.scale for row in made.rows] == [2.0, pytest.approx(64 / 70)]
    (found,) = made.findings
    assert (found.file, found.check, found.level) == ("00.png", "tiny", "warning")
    assert "enlarged 2.0 times" in found.why and "boxes.toml" in found.why and "32 × 32" in str(found.value)
    assert sum("enlarged 2.0 times" in e.text for e in events if isinstance(e, Note)) == 1
    waived, events = built(configured(tmp_path, waive=[{"check": "tiny", "file": "00.png", "reason": "the clasp"}]))
    assert [f.waived for f in waived.findings] == ["the clasp"]
    assert not any("enlarged" in e.text for e in events if isinstance(e, Note))
    # what is too small as a whole is said once
    texture(9, 40, 40).save(tmp_path / "images" / "09.png")
    small, _ = built(configured(tmp_path))
    assert [(f.file, f.level) for f in small.findings] == [("09.png", "error"), ("00.png", "warning")]


@pytest.mark.parametrize("buckets", ["square", "kohya", "sdxl"])
def test_pictures_of_the_training_size_and_any_shape_are_never_enlarged(tmp_path: Path, buckets: str) -> None:
    (tmp_path / "images").mkdir()
    for i, size in enumerate([(128, 128), (128, 300), (300, 129), (131, 170), (500, 128), (128, 155)]):
        texture(i, *size).save(tmp_path / "images" / f"{i}.png")
    crops = ["full", "upper", "lower"]
    made, events = built(configured(tmp_path, buckets=buckets, resolution=128, crops=crops))
    assert all(row.scale <= 1.05 for row in made.rows)
    assert not any("enlarged" in str(e) for e in events)


@needs_photographs
@pytest.mark.parametrize("subject", ["dog5", "teapot"])
def test_real_photographs_are_checked_and_built_without_a_false_error(tmp_path: Path, subject: str) -> None:
    """dog5/03 is 02 mirrored (its authors say so); a teapot is dark and soft, and no mistake."""
    config = configured(
        tmp_path,
        images=str(FOLDER / subject),
        resolution=512,
        held_out=1,
        crops=["full", "upper", "lower"],
        drop=["unreadable", "exact-duplicate", "near-duplicate"],
    )
    assert open_errors(looked_at(config)) == 0
    made, _ = built(config)
    assert open_errors(made.findings) == 0
    assert [one.file for one in made.dropped] == (["03.jpg"] if subject == "dog5" else [])
    assert len(made.held_out) == 1 and all(row.scale <= 1.05 for row in made.rows)
    there = {path.name for path in (FOLDER / subject).glob("*.jpg")}
    assert {row.source for row in made.rows} == there - {one.file for one in made.dropped}
