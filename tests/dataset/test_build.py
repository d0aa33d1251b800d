import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vez import dataset
from vez.config import Checks, Config, Project
from vez.config import Dataset as Recipe
from vez.dataset import Dataset, choose_held_out, inspect, training_names
from vez.errors import ConfigError, DataError, StoreError
from vez.events import Done, Event, Note, Stage
from vez.images.checks import Picture
from vez.images.findings import Finding
from vez.images.pixels import pixels_sha256
from vez.store import open_artifact, verify

PROJECT = Project(base="tiny", trigger="zolka", noun="coat", describes="a red coat")


class Teller:
    """A captioner that says how bright a picture is, and counts what it was asked."""

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
    remarks = [(f.file[:2], f.value) for f in made.findings if f.check == "caption"]
    assert remarks == [("01", "a girl in a coat"), ("02", "empty"), ("03", "not UTF-8"), ("99", "")]


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
    reasons = dict(made.dropped)
    assert set(reasons) == {"cut.jpg", "empty.png", "page.png", "phone.heic", "copy.jpg"}
    assert "01.jpg" in reasons["copy.jpg"] and "HEIC" in reasons["phone.heic"] and "cut short" in reasons["cut.jpg"]
    assert sorted(p.name for p in (made.path / "images").iterdir()) == ["00.png", "01.png", "02.png"]
    assert sum(isinstance(e, Note) and e.text.startswith("left out") for e in events) == 5
    assert {f.check for f in made.findings} == {"unreadable", "exact-duplicate"}
    assert (folder / "cut.jpg").exists()


def test_what_is_dropped_is_chosen_by_the_configuration(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    texture(7, 40, 40).save(tmp_path / "images" / "small.png")
    assert len(built(configured(tmp_path))[0].rows) == 3
    made, _ = built(configured(tmp_path, drop=["tiny"]))
    assert [f for f, _ in made.dropped] == ["small.png"] and len(made.rows) == 2


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
    with pytest.raises(DataError, match="held_out = 5, but of 6 pictures 4 have no near-duplicate"):
        built(configured(tmp_path, held_out=5))


@given(
    st.lists(st.text("abcdef", min_size=4, max_size=4), min_size=3, max_size=9, unique=True),
    st.integers(0, 2),
    st.data(),
)
def test_the_choice_of_held_out_does_not_depend_on_order_or_names(
    hashes: list[str], wanted: int, data: st.DataObject
) -> None:
    pictures = [Picture(f"{i}.png", pixels=value) for i, value in enumerate(hashes)]
    chosen = choose_held_out(pictures, [], wanted)
    shuffled = data.draw(st.permutations(pictures))
    assert len(chosen) == wanted and choose_held_out(shuffled, [], wanted) == chosen


def test_held_out_pairs_with_a_dropped_picture_do_not_count() -> None:
    pair = Finding("1.png", "exact-duplicate", 0.0, 0.0, "", "", other="0.png")
    pictures = [Picture("0.png", pixels="a"), Picture("2.png", pixels="b")]
    assert choose_held_out(pictures, [pair], 1) == {"0.png"}


@given(st.lists(st.from_regex(r"[aAbB-]{1,4}\.(jpg|png|JPG)", fullmatch=True), unique=True, max_size=12))
def test_training_names_are_different_on_any_file_system(files: list[str]) -> None:
    names = training_names(files)
    assert set(names) == set(files) and len({name.lower() for name in names.values()}) == len(files)


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
            def caption(self, images): os.kill(os.getpid(), 9)
        project = Project(base="tiny", trigger="zolka", noun="coat", describes="a red coat")
        recipe = {"images": "images", "resolution": 64}
        config = Config(project=project, dataset={"v1": recipe}, root=Path(sys.argv[1]))
        list(dataset.build(config, "v1", captioner=Dies()))
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
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
    assert [(f.file, f.check) for f in inspect(configured(tmp_path), "v1")] == [("broken.png", "unreadable")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images"]


def test_rows_are_plain_json_lines(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    made, _ = built(configured(tmp_path, checks=Checks(blurred=0)))
    rows = [json.loads(line) for line in (made.path / "rows.jsonl").read_text().splitlines()]
    assert list(rows[0]) == ["file", "sha256", "source", "source_sha256", "machine", "caption", "hand", "split"]
    assert [f.check for f in made.findings] == ["blurred", "blurred"]
