import hashlib
import io
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vez import config
from vez.dataset.export import Layout, export
from vez.dataset.imports import Imported, import_dataset
from vez.dataset.kohya import number_and_words
from vez.dataset.remarks import REMARKS
from vez.dataset.rows import Dataset
from vez.errors import ConfigError, DataError, StoreError
from vez.images import provenance
from vez.images.metadata import has_places
from vez.images.pixels import pixels_sha256
from vez.images.provenance import Provenance
from vez.toml_edit import add_dataset

SOURCE = Path(__file__).parents[2] / "src" / "vez" / "dataset"


def picture(shade: int = 0, form: str = "PNG", *, gps: bool = False) -> bytes:
    exif = Image.Exif()
    if gps:
        exif.get_ifd(0x8825).update({1: "N", 2: (44.0, 49.0, 0.0), 3: "E", 4: (20.0, 27.0, 0.0)})
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (shade % 256, shade // 256, 7)).save(out, format=form, exif=exif)
    return out.getvalue()


def tree(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """A folder with these files; "*" as the content: a picture."""
    for i, (name, content) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(picture(i) if content == "*" else data)
    return root


def inside(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def said(imported: Imported) -> dict[str, tuple[str, ...]]:
    return {remark.kind: remark.files for remark in imported.remarks}


def captions(into: Path, name: str = "x") -> dict[str, str]:
    return {p.name: p.read_bytes().decode().removesuffix("\n") for p in sorted((into / "captions" / name).iterdir())}


def images(into: Path, name: str = "x") -> list[str]:
    return sorted(p.name for p in (into / "images" / name).iterdir())


KOHYA = {
    "10_zolka hat/a.png": "*",
    "10_zolka hat/a.caption": "zolka hat, snow",
    "10_zolka hat/b.jpg": "*",
    "2_zolka detail/a.png": "*",
    "2_zolka detail/a.caption": "zolka hat, detail",
    "loose.png": "*",
    "masks/a.png": "*",
    "0_none/a.png": "*",
    "4_empty/readme.md": "x",
    "reg/1_hat/r.png": "*",
}


def test_kohyas_folders_become_a_dataset_and_one_of_class_pictures(tmp_path: Path) -> None:
    source = tree(tmp_path / "train", KOHYA)
    before = inside(source)
    imported = import_dataset(source, tmp_path / "into", name="x")
    assert inside(source) == before
    concept, of_class = imported.parts
    assert (concept.name, concept.pictures, concept.captions, concept.role) == ("x", 3, 3, "concept")
    assert [(f.name, f.repeats, f.words, f.pictures) for f in concept.folders] == [
        ("10_zolka hat", 10, "zolka hat", 2),
        ("2_zolka detail", 2, "zolka detail", 1),
    ]
    assert (of_class.name, of_class.role, of_class.pictures) == ("x-class", "class", 1)
    assert images(tmp_path / "into") == ["a-2.png", "a.png", "b.jpg"]
    assert captions(tmp_path / "into") == {
        "a.txt": "zolka hat, snow",
        "b.txt": "zolka hat",
        "a-2.txt": "zolka hat, detail",
    }
    assert captions(tmp_path / "into", "x-class") == {"r.txt": "hat"}
    assert imported.trigger == "zolka" and (imported.pictures, imported.captions) == (4, 4)
    remarks = said(imported)
    assert remarks["class tokens"] == ("10_zolka hat/b.jpg", "reg/1_hat/r.png")
    assert remarks["no number"] == ("masks",)
    assert remarks["no repeats"] == ("0_none",) and remarks["empty folder"] == ("4_empty",)
    assert remarks["repeats"] == ("10_zolka hat × 10",)
    assert remarks["regularisation"] == ("reg",) and remarks["beside folders"] == ("train",)
    assert concept.renamed == {"2_zolka detail/a.png": "a-2.png"}


def test_the_tables_go_into_vez_toml_as_they_are(tmp_path: Path) -> None:
    imported = import_dataset(tree(tmp_path / "train", KOHYA), tmp_path / "into", name="x.1")
    path = tmp_path / "into" / "vez.toml"
    path.write_text('[project]\nbase = "tiny"\ntrigger = "zolka"\nnoun = "hat"\ndescribes = "a hat"\n')
    add_dataset(path, imported.tables)
    read = config.load(path)
    assert read.dataset["x.1"].images == Path("images/x.1") and read.dataset["x.1"].captions == Path("captions/x.1")
    assert read.dataset["x.1-class"].role == "class"
    assert "# 10_zolka hat: 2 pictures, repeats 10, class tokens zolka hat" in path.read_text()


@pytest.mark.parametrize("shape", ["img", "itself"])
def test_other_ways_to_name_kohyas_folder(tmp_path: Path, shape: str) -> None:
    if shape == "img":
        source = tree(tmp_path / "p", {"img/3_zolka/a.png": "*", "reg/1_hat/r.png": "*", "log/x.txt": "x"})
    else:
        source = tree(tmp_path / "3_zolka", {"a.png": "*"})
    imported = import_dataset(source, tmp_path / "into", name="x")
    assert imported.layout == "kohya" and imported.parts[0].folders[0].repeats == 3
    assert [part.role for part in imported.parts] == ["concept", "class"][: 2 if shape == "img" else 1]


@pytest.mark.parametrize(
    ("files", "kinds", "caption"),
    [
        ({}, {"class tokens": "a.png"}, "zolka"),
        ({"a.txt": "x"}, {"other extension": "a.png"}, "x"),
        ({"a.caption": "y", "a.txt": "x"}, {"two captions": "a.png"}, "y"),
        ({"a.caption": "y", "a.txt": "y"}, {}, "y"),
        ({"a.caption": b"caf\xe9"}, {"not UTF-8": "a.png"}, None),
        ({"a.caption": "\ufeffx"}, {"byte order mark": "a.png"}, "x"),
        ({"a.caption": "one\ntwo\n"}, {"first line": "a.png"}, "one"),
        ({"a.caption": "one\rtwo"}, {"first line": "a.png"}, "one"),
        ({"a.caption": "\n \n\nlate"}, {"empty caption": "a.png"}, None),
        ({"a.caption": ""}, {"empty caption": "a.png"}, None),
        ({"a.caption": "x" * 100_001}, {"too large": "a.png"}, None),
        ({"a.caption": "x", "b.txt": "x"}, {"no picture": "b.txt"}, "x"),
        ({"a.caption": "x", "c.gif": b"GIF89a", "d.Png": b"x"}, {"not read": ("c.gif", "d.Png")}, "x"),
        ({"a.caption": "x", "e.jxl": b"x"}, {"unknown kind": "e.jxl"}, "x"),
        ({"a.caption": "x", "deep/f.png": "*"}, {"nested folder": "deep"}, "x"),
        ({"a.caption": "x", ".hidden.png": "*", "._a.png": "*"}, {}, "x"),
    ],
)
def test_where_kohya_is_silent(
    tmp_path: Path, files: dict[str, bytes | str], kinds: dict[str, str | tuple[str, ...]], caption: str | None
) -> None:
    source = tree(tmp_path / "train", {f"1_zolka/{name}": content for name, content in {"a.png": "*", **files}.items()})
    imported = import_dataset(source, tmp_path / "into", name="x")
    wanted = {kind: (names,) if isinstance(names, str) else names for kind, names in kinds.items()}
    found = {kind: tuple(Path(f).name for f in files) for kind, files in said(imported).items()}
    assert found == wanted
    assert images(tmp_path / "into") == ["a.png"]
    assert (captions(tmp_path / "into") if caption else None) == ({"a.txt": caption} if caption else None)
    assert imported.parts[0].captions == bool(caption)
    for kind in wanted:
        assert REMARKS[kind] in imported.as_text()


def test_an_extension_that_was_asked_for_is_the_only_one(tmp_path: Path) -> None:
    source = tree(tmp_path / "train", {"1_zolka/a.png": "*", "1_zolka/a.txt": "x", "1_zolka/b.png": "*"})
    (source / "1_zolka" / "b.caption").write_text("y")
    imported = import_dataset(source, tmp_path / "one", name="x", caption_extension="txt")
    assert captions(tmp_path / "one") == {"a.txt": "x", "b.txt": "zolka"}
    assert said(imported)["other extension, left"] == ("1_zolka/b.png",)
    import_dataset(source, tmp_path / "two", name="x")
    assert captions(tmp_path / "two") == {"a.txt": "x", "b.txt": "y"}
    with pytest.raises(DataError, match="caption_extension"):
        import_dataset(source, tmp_path / "three", name="x", caption_extension="/../x")


def test_kohyas_way_to_another_files_caption_is_not_taken(tmp_path: Path) -> None:
    source = tree(tmp_path / "train", {"1_zolka/a_b_1_2_3_4.png": "*", "1_zolka/a_b.caption": "of another"})
    imported = import_dataset(source, tmp_path / "into", name="x")
    assert said(imported)["fallback"] == ("1_zolka/a_b_1_2_3_4.png ← 1_zolka/a_b.caption",)
    assert captions(tmp_path / "into") == {"a_b_1_2_3_4.txt": "zolka"}


def test_underscores_in_the_names_of_folders_count_there_too(tmp_path: Path) -> None:
    """kohya cuts the whole path, so one stray file captions every picture of a folder."""
    source = tree(tmp_path / "my_big_new_set", {"10_zolka/a.png": "*", "10_zolka/b.png": "*"})
    (tmp_path / "my.caption").write_text("of nobody")
    imported = import_dataset(source, tmp_path / "into", name="x")
    assert len(said(imported)["fallback"]) == 2


def test_one_stem_with_two_suffixes_and_dots_in_names(tmp_path: Path) -> None:
    files = {"a.png": "*", "a.jpg": "*", "a.txt": "both", "b.upper.png": "*", "b.upper.txt": "up", "B.PNG": "*"}
    imported = import_dataset(tree(tmp_path / "flat", files), tmp_path / "into", name="x")
    assert imported.layout == "sidecars"
    assert said(imported)["one stem"] == ("a.jpg", "a.png")
    assert captions(tmp_path / "into") == {"a.txt": "both", "a-2.txt": "both", "b-upper.txt": "up"}
    assert images(tmp_path / "into") == ["B.PNG", "a-2.png", "a.jpg", "b-upper.png"]
    assert imported.parts[0].renamed == {"a.png": "a-2.png", "b.upper.png": "b-upper.png"}


def test_flat_sidecars_join_their_lines(tmp_path: Path) -> None:
    source = tree(tmp_path / "flat", {"a.png": "*", "a.txt": "one\n\n two \n", "b.png": "*", "b.caption": "three"})
    imported = import_dataset(source, tmp_path / "into", name="x")
    assert captions(tmp_path / "into") == {"a.txt": "one two", "b.txt": "three"}
    assert {"joined lines", "other extension"} <= set(said(imported))


CONFIG = """
[general]
caption_extension = "txt"
shuffle_caption = true
caption_prefix = "zolka,"

[[datasets]]
resolution = 512
enable_bucket = true
keep_tokens = 1

  [[datasets.subsets]]
  image_dir = "10_zolka hat"
  caption_suffix = "photo"

  [[datasets.subsets]]
  image_dir = "plain"
  num_repeats = 3
  class_tokens = "zolka"
  caption_prefix = ""
  conditioning_data_dir = "masks"

  [[datasets.subsets]]
  image_dir = "reg"
  is_reg = true
  class_tokens = "hat"
  caption_prefix = ""

  [[datasets.subsets]]
  image_dir = "plain"
"""
CONFIG_FILES = {
    "10_zolka hat/a.png": "*",
    "10_zolka hat/a.txt": "snow",
    "10_zolka hat/n.png": "*",
    "plain/b.png": "*",
    "plain/c.png": "*",
    "masks/b.png": "*",
    "reg/r.png": "*",
}


def as_json(text: str) -> str:
    return json.dumps(tomllib.loads(text))


@pytest.mark.parametrize("form", ["toml", "json"])
def test_a_dataset_config_counts_and_not_the_folders_names(tmp_path: Path, form: str) -> None:
    source = tree(tmp_path / "s", CONFIG_FILES)
    file = source / f"set.{form}"
    file.write_text(CONFIG if form == "toml" else as_json(CONFIG))
    imported = import_dataset(file, tmp_path / "into", name="x")
    concept, of_class = imported.parts
    assert [(f.name, f.repeats, f.words) for f in concept.folders] == [("10_zolka hat", 1, ""), ("plain", 3, "zolka")]
    assert captions(tmp_path / "into") == {
        "a.txt": "zolka, snow photo",
        "n.txt": "zolka, photo",  # kohya's prefix and suffix stand alone where there is no caption
        "b.txt": "zolka",
        "c.txt": "zolka",
    }
    assert of_class.pictures == 1 and captions(tmp_path / "into", "x-class") == {"r.txt": "hat"}
    assert sorted(p.name for p in (tmp_path / "into" / "masks" / "x").iterdir()) == ["b.png"]
    remarks = said(imported)
    assert remarks["folder name"] == ("10_zolka hat",) and remarks["twice"] == ("plain",)
    assert remarks["settings"] == ("keep_tokens = 1", "shuffle_caption = true")
    assert remarks["no caption"] == ("10_zolka hat/n.png",)
    for line in ("resolution = 512", 'buckets = "kohya"', 'masks = "masks/x"'):
        assert line in imported.tables


def test_a_config_without_a_word_on_extensions_reads_dot_caption(tmp_path: Path) -> None:
    source = tree(
        tmp_path, {"p/a.png": "*", "p/a.txt": "x", "c.toml": '[[datasets]]\n[[datasets.subsets]]\nimage_dir="p"'}
    )
    imported = import_dataset(source / "c.toml", tmp_path / "into", name="x")
    assert said(imported)["other extension"] == ("p/a.png",) and captions(tmp_path / "into") == {"a.txt": "x"}


SUBSET = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "p"\n'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("x = [", "cannot be read as kohya's dataset config"),
        ("[[datasets]]\n", "names no folder of pictures"),
        ("datasets = 3", "lists of tables"),
        ("general = 3\n" + SUBSET, "expected a table"),
        ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 1\n", "a subset without image_dir"),
        (SUBSET.replace('"p"', '"C:\\\\train\\\\x"'), "which is not there"),
        (SUBSET.replace('"p"', '"a\\u0000b"'), "which is not there"),
        (SUBSET + 'metadata_file = "m.json"\n', "metadata_file"),
        (SUBSET + 'num_repeats = "3"\n', "num_repeats is '3'"),
        (SUBSET + "num_repeats = true\n", "num_repeats is True"),
        (SUBSET + 'caption_extension = "/x/y"\n', "caption_extension is '/x/y'"),
        (SUBSET + "num_repeats = 0\n", "names no folder of pictures"),
    ],
)
def test_configs_that_cannot_be_meant(tmp_path: Path, text: str, error: str) -> None:
    tree(tmp_path / "s", {"p/a.png": "*", "c.toml": text})
    with pytest.raises(DataError, match=error):
        import_dataset(tmp_path / "s" / "c.toml", tmp_path / "into", name="x")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("resolution = [512, 768]", "resolution"),
        ("resolution = 500.5", "resolution"),
        ("enable_wildcard = true", "wildcards"),
    ],
)
def test_what_vez_toml_cannot_say_is_said(tmp_path: Path, line: str, kind: str) -> None:
    tree(
        tmp_path / "s",
        {"p/a.png": "*", "c.toml": SUBSET.replace("[[datasets]]", f"[[datasets]]\n{line}") + "alpha_mask = true"},
    )
    imported = import_dataset(tmp_path / "s" / "c.toml", tmp_path / "into", name="x")
    assert kind in said(imported) and "resolution" not in imported.tables
    assert 'masks = "alpha"' in imported.tables


def metadata(*rows: Mapping[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_imagefolders_of_hugging_face(tmp_path: Path) -> None:
    files = {
        "train/a.png": "*",
        "train/sub/b.png": "*",
        "train/lost.png": "*",
        "train/metadata.jsonl": metadata(
            {"file_name": "a.png", "text": "zolka,\u2028 snow"},
            {"file_name": "sub/b.png", "text": ["zolka, one", "two"]},
            {"file_name": "gone.png", "text": "x"},
            {"file_name": "a.png", "text": "again"},
        ),
        "validation/c.jpg": "*",
        "validation/metadata.csv": 'file_name,caption\nc.jpg,"zolka, ""quoted"",\nin two lines"\n',
    }
    imported = import_dataset(tree(tmp_path / "hf", files), tmp_path / "into", name="x")
    assert imported.layout == "imagefolder" and imported.trigger == "zolka"
    assert captions(tmp_path / "into") == {
        "a.txt": "zolka,\u2028 snow",
        "b.txt": "zolka, one",
        "c.txt": 'zolka, "quoted", in two lines',
    }
    assert said(imported) == {
        "no row": ("train/lost.png",),
        "no file": ("train/gone.png",),
        "several texts": ("train/sub/b.png", "train/a.png"),
        "validation": ("validation/c.jpg",),
    }


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "/etc/x.png",
        "a/../../x.png",
        "..\\secret.png",
        "C:\\x.png",
        "\\\\host\\x.png",
        "",
        "a\0.png",
        3,
    ],
)
def test_metadata_that_leads_outside_is_refused(tmp_path: Path, name: object) -> None:
    tree(
        tmp_path, {"secret.png": "*", "hf/a.png": "*", "hf/metadata.jsonl": metadata({"file_name": name, "text": "x"})}
    )
    with pytest.raises(DataError, match=r"lies outside its folder|without file_name"):
        import_dataset(tmp_path / "hf", tmp_path / "into", name="x")
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("file", "content", "error"),
    [
        ("metadata.jsonl", "{", "line 1 is not JSON"),
        ("metadata.jsonl", "\n[1]\n", "line 2 is no object"),
        ("metadata.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("metadata.jsonl", b"\xff", "save it as UTF-8"),
        ("metadata.csv", 'file_name,text\n"a.png', "is not CSV"),
        ("metadata.csv", "text\nx\n", "without file_name"),
    ],
)
def test_damaged_metadata_is_refused(tmp_path: Path, file: str, content: bytes | str, error: str) -> None:
    tree(tmp_path / "hf", {"a.png": "*", file: content})
    with pytest.raises(DataError, match=error):
        import_dataset(tmp_path / "hf", tmp_path / "into", name="x")


def test_links_out_of_the_dataset_are_not_followed(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {"secret.txt": "a secret", "secret.png": "*", "flat/a.png": "*", "flat/c.png": "*", "flat/own.txt": "mine"},
    )
    (tmp_path / "flat" / "a.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "flat" / "b.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "flat" / "c.txt").symlink_to("own.txt")
    imported = import_dataset(tmp_path / "flat", tmp_path / "into", name="x")
    assert said(imported)["link"] == ("b.png", "a.txt")
    assert images(tmp_path / "into") == ["a.png", "c.png"] and captions(tmp_path / "into") == {"c.txt": "mine"}
    tree(tmp_path / "hf", {"metadata.jsonl": metadata({"file_name": "b.png", "text": "x"}), "a.png": "*"})
    (tmp_path / "hf" / "b.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="no picture to import"):
        import_dataset(tmp_path / "hf", tmp_path / "into", name="y")


def test_places_stay_behind_and_provenance_goes_along(tmp_path: Path) -> None:
    data = picture(3, "JPEG", gps=True)
    source = tree(
        tmp_path / "train", {"1_zolka/a b.jpg": data, "1_zolka/c.png": "*", "1_zolka/d.jpg": b"\xff\xd8\xff\xe1"}
    )
    provenance.write(source, [Provenance("1_zolka/a b.jpg", author="Ana"), Provenance("gone.png")])
    provenance.write(source / "1_zolka", [Provenance("c.png", licence="CC0-1.0", original_sha256="o")])
    imported = import_dataset(source, tmp_path / "into", name="x")
    folder = tmp_path / "into" / "images" / "x"
    kept = (folder / "a b.jpg").read_bytes()
    assert has_places(data) and not has_places(kept)
    records = provenance.read(folder)
    sha256 = [hashlib.sha256(bytes_).hexdigest() for bytes_ in (data, kept)]
    assert (records["a b.jpg"].author, records["a b.jpg"].original_sha256, records["a b.jpg"].sha256) == (
        "Ana",
        *sha256,
    )
    assert (records["c.png"].licence, records["c.png"].original_sha256) == ("CC0-1.0", "o")
    assert set(records) == {"a b.jpg", "c.png"}
    assert said(imported).get("place", ()) in ((), ("1_zolka/d.jpg",))


def test_odd_names_become_plain_ones(tmp_path: Path) -> None:
    source = tmp_path / "flat"
    source.mkdir()
    odd = ["a\nb.png", 'x"y:z.png', " lead.png", "n" * 200 + ".png", "e\u0301.png"]
    for name in odd:
        (source / name).write_bytes(picture())
    with open(os.fsencode(source) + b"/b\xff.png", "wb") as file:
        file.write(picture())
    imported = import_dataset(source, tmp_path / "into", name="x")
    names = images(tmp_path / "into")
    assert names == sorted(["a_b.png", "x-y-z.png", "lead.png", "n" * 120 + ".png", "é.png", "b-.png"])
    assert len(imported.parts[0].renamed) == 6
    imported.as_text().encode()


@pytest.mark.parametrize("top", ["images", "captions", "masks"])
def test_what_is_there_is_not_overwritten(tmp_path: Path, top: str) -> None:
    source = tree(tmp_path / "flat", {"a.png": "*"})
    tree(tmp_path / "into", {f"{top}/x/mine.txt": "mine"})
    with pytest.raises(ConfigError, match="is there already"):
        import_dataset(source, tmp_path / "into", name="x")
    assert inside(tmp_path / "into") == {f"{top}/x/mine.txt": b"mine"}


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    source = tree(tmp_path / "flat", {"a.png": "*", "a.txt": "x"})
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "images").write_text("in the way")
    with pytest.raises((StoreError, ConfigError)):
        import_dataset(source, tmp_path / "into", name="x")
    assert [p.name for p in (tmp_path / "into").rglob("*") if p.is_file()] == ["images"]


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "a b", "é"])
def test_names_that_no_dataset_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="no dataset can be called"):
        import_dataset(tree(tmp_path / "flat", {"a.png": "*"}), tmp_path / "into", name=name)


def test_what_is_no_dataset_is_told_what_was_expected(tmp_path: Path) -> None:
    source = tree(tmp_path / "s", {"cats/a.png": "*", "notes.txt": "x"})
    with pytest.raises(DataError, match=r"expected <N>_<words>/.*there is cats, notes.txt"):
        import_dataset(source, tmp_path / "into", name="x")
    with pytest.raises(DataError, match=r"expected <folder>/<N>_<words>/picture.png.*there is cats"):
        import_dataset(source, tmp_path / "into", name="x", layout="kohya")
    with pytest.raises(DataError, match=r"no metadata\.jsonl"):
        import_dataset(source, tmp_path / "into", name="x", layout="imagefolder")
    with pytest.raises(DataError, match=r"no picture to import .*nested folder"):
        import_dataset(source, tmp_path / "into", name="x", layout="sidecars")
    with pytest.raises(DataError, match="there is no folder"):
        import_dataset(tmp_path / "none", tmp_path / "into", name="x")
    assert not (tmp_path / "into").exists()


def test_every_remark_has_its_occasion() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCE.glob("*.py") if path.name != "remarks.py")
    assert not [kind for kind in REMARKS if f'"{kind}"' not in text]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("10_a b", (10, "a b")), ("3", (3, "")), ("-1_a", (-1, "a")), ("a_1", None), ("1_a_b", (1, "a_b")), ("_a", None)],
)
def test_what_a_folders_name_says(name: str, meant: tuple[int, str] | None) -> None:
    assert number_and_words(name) == meant


one_line = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=40).filter(
    lambda text: text == text.strip() and not text.startswith("\ufeff")
)


@settings(max_examples=30)
@given(said_of=st.lists(one_line, min_size=8, max_size=8), layout=st.sampled_from(["kohya", "imagefolder", "sidecars"]))
def test_what_is_exported_comes_back(tiny_dataset: Dataset, said_of: list[str], layout: Layout) -> None:
    rows = [replace(row, caption=text) for row, text in zip(tiny_dataset.rows, said_of, strict=True)]
    rows[0] = replace(rows[0], source="a.jpg", licence="CC0-1.0")
    dataset = replace(tiny_dataset, rows=tuple(rows))
    expected = dataset.rows if layout == "imagefolder" else dataset.train  # the others ignore what is held out
    root = Path(tempfile.mkdtemp())
    try:
        export(dataset, root / "out", layout=layout, repeats=2, words="zolka hat")
        extension = ".txt" if layout == "kohya" else None
        imported = import_dataset(root / "out", root / "into", name="x", caption_extension=extension)
        assert imported.layout == layout and imported.parts[0].pictures == len(expected)
        folder = root / "into" / "images" / "x"
        records = provenance.read(folder)
        for row in expected:
            name = Path(row.file).name
            with Image.open(folder / name) as image:
                assert pixels_sha256(image.convert("RGB")) == row.sha256
            text = (root / "into" / "captions" / "x" / f"{Path(name).stem}.txt").read_bytes().decode()
            assert text == row.caption + "\n"
            assert records[name].original_sha256 == row.source_sha256
        assert records["00.png"].licence == "CC0-1.0" and imported.parts[0].captions == len(expected)
        if layout == "kohya":
            again = import_dataset(root / "out" / "dataset.toml", root / "into", name="y")
            assert again.parts[0].captions == len(expected) and "resolution = 64" in again.tables
            assert not said(again).keys() - {"nested folder", "link"}
    finally:
        shutil.rmtree(root)


def test_lines_to_draw_from_stay_apart(tmp_path: Path) -> None:
    config = SUBSET.replace("[[datasets]]", "[[datasets]]\nenable_wildcard = true") + 'caption_extension = ".txt"'
    tree(tmp_path / "s", {"p/a.png": "*", "p/a.txt": "a {red|green} hat\r\n\n  a doll \n", "c.toml": config})
    imported = import_dataset(tmp_path / "s" / "c.toml", tmp_path / "into", name="x")
    assert 'caption_lines = "draw"' in imported.tables
    assert (tmp_path / "into" / "captions" / "x" / "a.txt").read_text() == "a {red|green} hat\na doll\n"
