import hashlib
import json
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vez.dataset.export import export
from vez.dataset.rows import Dataset, Row
from vez.errors import ConfigError, StoreError
from vez.images import provenance
from vez.images.pixels import pixels_sha256
from vez.images.provenance import Provenance

PROJECT = {"trigger": "zolka", "noun": "folk costume", "describes": "a folk costume"}


@pytest.fixture
def dataset(tiny_dataset: Dataset, tmp_path: Path) -> Dataset:
    """Six rows to train on and two held out, 64×64, without masks."""
    path = tmp_path / "store" / "v2-12345678"
    shutil.copytree(tiny_dataset.path, path)
    return replace(tiny_dataset, path=path, config={**tiny_dataset.config, "project": PROJECT})


def redrawn(dataset: Dataset, shapes: Sequence[tuple[int, int]]) -> Dataset:
    """The dataset with its pictures in these shapes in turn."""
    rows: list[Row] = []
    for i, row in enumerate(dataset.rows):
        width, height = shapes[i % len(shapes)]
        image = Image.fromarray(np.full((height, width, 3), 20 * i + 10, dtype=np.uint8))
        image.save(dataset.path / row.file)
        rows.append(replace(row, sha256=pixels_sha256(image), width=width, height=height, box=(0, 0, width, height)))
    return replace(dataset, rows=tuple(rows))


def kohya_reads(parent: Path, extension: str = ".txt") -> list[tuple[str, int, str]]:
    """(Picture, repeats, caption) as sd-scripts find them below train_data_dir."""
    read = []
    for folder in parent.iterdir():
        number, _, words = folder.name.partition("_")
        if not folder.is_dir() or not number.isdigit():
            continue
        for picture in sorted(folder.iterdir()):
            if picture.suffix in (".png", ".jpg"):
                caption = picture.with_name(picture.stem + extension)
                lines = caption.read_text(encoding="utf-8").split("\n")[:-1] if caption.is_file() else [words]
                assert lines, "kohya stops on an empty file"
                read.append((picture.name, int(number), lines[0].strip()))
    return read


def exported(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_kohya_finds_every_training_picture_with_its_caption_and_no_other(dataset: Dataset, tmp_path: Path) -> None:
    written = export(dataset, tmp_path / "out", layout="kohya", repeats=10)
    assert kohya_reads(tmp_path / "out") == [(Path(r.file).name, 10, r.caption) for r in dataset.train]
    assert (tmp_path / "out" / "10_zolka folk costume" / "00.png").is_file()
    assert {p.name for p in (tmp_path / "out" / "held_out").iterdir()} == {"06.png", "06.txt", "07.png", "07.txt"}
    assert written == sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert "kohya ignores it" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert table["general"] == {"caption_extension": ".txt"}
    (dataset,) = table["datasets"]
    (subset,) = dataset.pop("subsets")
    return dataset, subset


def test_the_config_says_the_same(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, tmp_path / "out", layout="kohya", repeats=3, words='a "hat"s'.replace('"', "'"))
    table, subset = config(tmp_path / "out" / "dataset.toml")
    assert table == {"resolution": [64, 64]}
    folder = str(tmp_path / "out" / "3_a 'hat's")
    assert subset == {"image_dir": folder, "num_repeats": 3, "class_tokens": "a 'hat's"}
    assert Path(folder).is_dir() and not (tmp_path / "out" / "dataset-masked.toml").exists()


@pytest.mark.parametrize(
    ("shapes", "step", "least", "most"),
    [([(64, 128), (128, 64), (64, 64)], 64, 64, 128), ([(72, 64), (64, 64)], 8, 64, 72)],
)
def test_shapes_that_differ_need_buckets(
    dataset: Dataset, tmp_path: Path, shapes: list[tuple[int, int]], step: int, least: int, most: int
) -> None:
    export(redrawn(dataset, shapes), tmp_path / "out", layout="kohya")
    table, _ = config(tmp_path / "out" / "dataset.toml")
    assert table == {
        "resolution": 64,
        "enable_bucket": True,
        "bucket_no_upscale": True,
        "bucket_reso_steps": step,
        "min_bucket_reso": least,
        "max_bucket_reso": most,
    }
    # what kohya asserts (adjust_min_max_bucket_reso_by_steps)
    assert table["min_bucket_reso"] % step == table["max_bucket_reso"] % step == 0 and least <= 64 <= most


def test_class_pictures_are_regularisation_pictures(dataset: Dataset, tmp_path: Path) -> None:
    rows = tuple(replace(row, split="train") for row in dataset.rows)
    of_class = replace(dataset, rows=rows, config={**dataset.config, "role": "class"})
    export(of_class, tmp_path / "out", layout="kohya")
    _, subset = config(tmp_path / "out" / "dataset.toml")
    assert subset["is_reg"] is True and subset["class_tokens"] == "folk costume"
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "--reg_data_dir" in text and not (tmp_path / "out" / "held_out").exists()


def test_masks_go_where_kohya_looks_for_them(dataset: Dataset, tmp_path: Path) -> None:
    (dataset.path / "masks").mkdir()
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[:32] = 255
    rows = list(dataset.rows)
    for i in (0, 7):  # one of a training picture, one of a held-out one
        Image.fromarray(mask).save(dataset.path / "masks" / f"{i:02d}.png")
        rows[i] = replace(rows[i], mask=f"masks/{i:02d}.png", width=64, height=64)
    rows = [replace(row, width=64, height=64) for row in rows]
    export(replace(dataset, rows=tuple(rows)), tmp_path / "out", layout="kohya")
    _, subset = config(tmp_path / "out" / "dataset-masked.toml")
    # unknown to kohya's schema of such a subset
    assert set(subset) == {"image_dir", "num_repeats", "conditioning_data_dir"}
    trained = {p.name for p in Path(subset["image_dir"]).glob("*.png")}
    masks = {p.name for p in Path(subset["conditioning_data_dir"]).glob("*.png")}
    assert masks == trained  # kohya stops where one is missing, or one too many
    with Image.open(Path(subset["conditioning_data_dir"]) / "00.png") as image:
        assert np.array_equal(np.array(image), mask)
    with Image.open(Path(subset["conditioning_data_dir"]) / "01.png") as image:
        assert image.mode == "L" and np.array(image).min() == 255
    assert "conditioning_data_dir" not in (tmp_path / "out" / "dataset.toml").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "masks" / "held_out" / "07.png").is_file()


def test_imagefolder_has_a_row_for_every_picture_of_a_split(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, tmp_path / "out", layout="imagefolder")
    for split, rows in (("train", dataset.train), ("validation", dataset.held_out)):
        text = (tmp_path / "out" / split / "metadata.jsonl").read_text(encoding="utf-8")
        read = [json.loads(line) for line in text.splitlines()]
        assert read == [{"file_name": Path(row.file).name, "text": row.caption} for row in rows]
        assert {p.name for p in (tmp_path / "out" / split).glob("*.png")} == {row["file_name"] for row in read}
    front = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert front.startswith("---\nlicense: ")


def test_sidecars_lie_flat(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, tmp_path / "out", layout="sidecars")
    top = {p.name for p in (tmp_path / "out").iterdir()}
    names = [Path(row.file).stem for row in dataset.train]
    assert top == {"README.md", "provenance.jsonl", "held_out", *(f"{n}.{s}" for n in names for s in ("png", "txt"))}
    assert (tmp_path / "out" / "03.txt").read_text(encoding="utf-8") == dataset.rows[3].caption + "\n"


@pytest.mark.parametrize("caption", ["", " \n", "one\ntwo", "a\r\nb", "é 漢 \u2028 x"])
def test_a_caption_is_one_line_that_kohya_does_not_stop_on(dataset: Dataset, tmp_path: Path, caption: str) -> None:
    rows = (replace(dataset.rows[0], caption=caption), *dataset.rows[1:])
    export(replace(dataset, rows=rows), tmp_path / "out", layout="kohya")
    (_, _, read), *_ = kohya_reads(tmp_path / "out")
    assert read == caption.replace("\r\n", "  ").replace("\n", " ").strip()


def test_pixels_are_the_same_and_nothing_else_is_in_the_files(dataset: Dataset, tmp_path: Path) -> None:
    row = dataset.rows[0]
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    with Image.open(dataset.path / row.file) as image:
        image.load()
        image.save(dataset.path / row.file, exif=exif)
    export(dataset, tmp_path / "out", layout="sidecars")
    with Image.open(tmp_path / "out" / "00.png") as image:
        assert not image.info and not image.getexif()
        assert pixels_sha256(image.convert("RGB")) == row.sha256
    chunks = {data[i : i + 4] for data in exported(tmp_path / "out").values() for i in range(len(data) - 4)}
    assert not chunks & {b"eXIf", b"tEXt", b"iTXt", b"zTXt", b"iCCP"}


@pytest.mark.parametrize("layout", ["kohya", "imagefolder", "sidecars"])
def test_card_and_provenance_go_along(dataset: Dataset, tmp_path: Path, layout: Any) -> None:
    provenance.write(
        dataset.path, [Provenance("00.jpg", author="Ana", licence="CC-BY-4.0", original_sha256="o", note="scan")]
    )
    rows = (replace(dataset.rows[0], licence="CC-BY-4.0"), *dataset.rows[1:])
    export(replace(dataset, rows=rows), tmp_path / "out", layout=layout)
    records = provenance.read(tmp_path / "out")
    pictures = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*.png")}
    assert set(records) == set(pictures)
    for file, record in records.items():
        assert record.sha256 == hashlib.sha256(pictures[file].read_bytes()).hexdigest()
    first = next(record for file, record in records.items() if file.endswith("00.png"))
    assert (first.author, first.licence, first.original_sha256) == ("Ana", "CC-BY-4.0", "o")
    assert first.note.startswith("scan; full [0, 0, 64, 64] of 00.jpg, dataset v2 ")
    other = next(record for file, record in records.items() if file.endswith("01.png"))
    assert other.original_sha256 == dataset.rows[1].source_sha256
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "CC-BY-4.0; " not in text.split("## Sources")[0] and "| 00.jpg | Ana |" in text
    assert "## This folder" in text and 'Trigger word: "zolka"' in text


def test_two_exports_are_the_same_but_for_the_place(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, tmp_path / "a", layout="imagefolder")
    export(dataset, tmp_path / "b", layout="imagefolder")
    assert exported(tmp_path / "a") == exported(tmp_path / "b")


def test_a_folder_that_holds_something_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="is not empty"):
        export(dataset, out, layout="kohya")
    assert exported(out) == {"mine.txt": b"mine"}
    with pytest.raises(StoreError, match="is not empty"):
        export(dataset, out / "mine.txt", layout="kohya")
    (tmp_path / "empty").mkdir()
    assert export(dataset, tmp_path / "empty", layout="sidecars")


def test_a_picture_that_was_changed_leaves_nothing_behind(dataset: Dataset, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(dataset.path / dataset.rows[-1].file)
    with pytest.raises(StoreError, match="was changed since"):
        export(dataset, tmp_path / "deep" / "out", layout="kohya")
    (dataset.path / dataset.rows[-1].file).unlink()
    with pytest.raises(StoreError, match="cannot write"):
        export(dataset, tmp_path / "deep" / "out", layout="kohya")
    assert not list((tmp_path / "deep").iterdir())


@pytest.mark.parametrize(
    "file", ["../../x.png", "images/../../x.png", "/x/images/x.png", "images/x.jpg", "images/.x.png"]
)
def test_a_manifest_that_points_elsewhere_is_refused(dataset: Dataset, tmp_path: Path, file: str) -> None:
    rows = (replace(dataset.rows[0], file=file), *dataset.rows[1:])
    with pytest.raises(StoreError, match="not of vez's making"):
        export(replace(dataset, rows=rows), tmp_path / "out", layout="kohya")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", ["a/b", "..", "a\nb", "a ", "x" * 101, "c:", "\x1b[2J"])
def test_words_that_no_folder_can_have(dataset: Dataset, tmp_path: Path, words: str) -> None:
    with pytest.raises(ConfigError, match="no folder can be called"):
        export(dataset, tmp_path / "out", layout="kohya", words=words)
    with pytest.raises(ConfigError, match="repeats is 0"):
        export(dataset, tmp_path / "out", layout="kohya", repeats=0)


def test_without_words_the_project_gives_them_whatever_it_holds(dataset: Dataset, tmp_path: Path) -> None:
    said = {**PROJECT, "trigger": "../zol\nka", "noun": "hat / cap:"}
    export(replace(dataset, config={"resolution": 64, "project": said}), tmp_path / "a", layout="kohya")
    assert (tmp_path / "a" / "1_-zol-ka hat - cap-").is_dir()
    export(replace(dataset, config={"resolution": 64}), tmp_path / "b", layout="kohya")
    assert (tmp_path / "b" / "1_v2").is_dir()
