"""What reaches the browser of a picture: its pixels."""

import struct
from pathlib import Path

import numpy as np
import pytest
from judged_study import PROJECT, build
from PIL import Image

from vez.errors import DataError, StoreError
from vez.judging import material, pictures
from vez.judging.material import Cell, readable


def test_both_of_a_pair_are_as_many_bytes_and_hold_nothing_but_pixels(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    noise.save(tmp_path / "busy.png")
    Image.new("RGB", (40, 40), (10, 20, 30)).save(tmp_path / "plain.png")
    assert (tmp_path / "busy.png").stat().st_size > 10 * (tmp_path / "plain.png").stat().st_size
    busy, plain = pictures.pair(tmp_path / "busy.png", tmp_path / "plain.png")
    side = 40 * 12
    assert len(busy) == len(plain) == 54 + side * side * 3  # a bitmap's header and its pixels
    assert busy[:54] == plain[:54]
    assert struct.unpack("<ii", busy[18:26]) == (side, side)


def test_metadata_stays_behind(tmp_path: Path) -> None:
    study = build(tmp_path)
    judged = material.read(study, PROJECT)
    first, second = (judged.files[Cell(arm, "snow-trigger", 0)] for arm in ("v1", "v2"))
    assert b"<lora:v1:1>" in first.read_bytes()
    for data in pictures.pair(first, second):
        assert b"lora" not in data and b"nosnja" not in data and data[:2] == b"BM"


def test_pictures_of_two_sizes_are_refused(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 41)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="different sizes"):
        pictures.pair(tmp_path / "a.png", tmp_path / "b.png")


def test_large_pictures_are_not_enlarged_and_references_are_made_small(tmp_path: Path) -> None:
    Image.new("RGB", (512, 512)).save(tmp_path / "a.png")
    Image.new("RGB", (900, 600)).save(tmp_path / "real.jpg")
    assert len(pictures.pair(tmp_path / "a.png", tmp_path / "a.png")[0]) == 54 + 512 * 512 * 3
    assert struct.unpack("<ii", pictures.reference(tmp_path / "real.jpg")[18:26]) == (320, 213)


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("nosnjaoutfit, a girl wearing traditional nosnjaoutfit, snow",
         "a girl wearing traditional Serbian folk costume, snow"),
        ("a photo of nosnjaoutfit folk costume at night", "a photo of traditional Serbian folk costume at night"),
        ("nosnjaoutfit, snow", "traditional Serbian folk costume, snow"),
        ("a red car", "a red car"),
    ],
)  # fmt: skip
def test_the_trigger_is_read_as_what_it_stands_for(prompt: str, read: str) -> None:
    assert readable(prompt, PROJECT) == read


def test_only_pictures_that_call_the_concept_are_judged_and_the_base_is_last(tmp_path: Path) -> None:
    judged = material.read(build(tmp_path, arms=("base", "v1", "v2")), PROJECT)
    assert judged.arms == ("v1", "v2", "base") and judged.base == "base"
    assert judged.prompts == ("snow-trigger", "beach-trigger", "field-trigger", "night-trigger")
    assert "nosnjaoutfit" not in str(judged.texts)


def test_a_row_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    study = build(tmp_path)
    rows = study / "samples" / "samples.jsonl"
    for bad in ("../../secret.png", "/etc/passwd", "v1/other.png"):
        rows.write_text(rows.read_text().replace("v1/snow-trigger-0.png", bad))
        with pytest.raises(StoreError, match="not of the artifact"):
            material.read(study)
        rows.write_text(rows.read_text().replace(bad, "v1/snow-trigger-0.png"))
    rows.write_text("[]\n")
    with pytest.raises(StoreError, match="cannot be read"):
        material.read(study)


def test_a_study_without_pictures_says_how_to_draw_them(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="vez sample thesis"):
        material.read(tmp_path / "thesis")
