import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vez.dataset.diff import Changes, as_json, as_text, diff, label
from vez.dataset.rows import Dataset, Dropped, Row
from vez.images.pixels import pixels_sha256


def row(name: str, *, shows: str = "", **fields: Any) -> Row:
    shows = shows or name
    standard: dict[str, Any] = {
        "file": f"images/{name}.png",
        "sha256": f"pixels of {shows}",
        "source": f"{name}.jpg",
        "source_sha256": f"file of {shows}",
        "machine": None,
        "caption": f"zolka, {name}",
        "hand": True,
        "split": "train",
    }
    return Row(**{**standard, **fields})


def dataset(
    *rows: Row, name: str = "v1", dropped: tuple[Dropped, ...] = (), config: Mapping[str, Any] | None = None
) -> Dataset:
    return Dataset(Path(f"{name}-00000000"), name * 8, rows, (), dropped, config or {"resolution": 64})


def no(_a: Row, _b: Row) -> bool:
    return False


def yes(_a: Row, _b: Row) -> bool:
    return True


def test_added_removed_and_captions_word_by_word() -> None:
    old = dataset(row("a"), row("b"), row("c", caption="zolka, a folk costume, snow"))
    new = dataset(row("a"), row("c", caption="zolka, traditional zolka, snow"), row("d"), name="v2")
    changes = diff(old, new)
    assert [label(s.row) for s in changes.added] == ["d.jpg"]
    assert [(s.row.source, s.reason) for s in changes.removed] == [("b.jpg", "no longer in the folder")]
    (change,) = changes.captions
    assert [(p.kind, p.text) for p in change.caption] == [
        ("same", "zolka,"),
        ("removed", "a folk costume"),
        ("added", "traditional zolka"),
        ("same", ", snow"),
    ]
    assert changes.unchanged == 1 and not changes.otherwise
    assert (changes.old.train, changes.new.name) == (3, "v2")


@pytest.mark.parametrize(
    ("dropped", "reason"),
    [
        (Dropped("b.jpg", "it is not sharp", "blurred"), "blurred: it is not sharp"),
        (Dropped("b.jpg", "blurred: it is not sharp", "blurred"), "blurred: it is not sharp"),
        (Dropped("b.jpg", "shows a child", "excluded"), "excluded by hand: shows a child"),
    ],
)
def test_a_removed_picture_says_why(dropped: Dropped, reason: str) -> None:
    changes = diff(dataset(row("a"), row("b")), dataset(row("a"), name="v2", dropped=(dropped,)))
    assert [(s.check, s.reason) for s in changes.removed] == [(dropped.check, reason)]
    assert not changes.refused


def test_the_reason_is_found_by_content_where_the_file_has_another_name() -> None:
    new = dataset(
        row("a"),
        name="v2",
        dropped=(Dropped("renamed.jpg", "too small", "tiny"), Dropped("b.jpg", "another picture", "dark")),
        config={"resolution": 64, "sources": {"renamed.jpg": "file of b", "b.jpg": "file of something else"}},
    )
    changes = diff(dataset(row("a"), row("b")), new)
    assert [s.reason for s in changes.removed] == ["tiny: too small"]
    assert [d.file for d in changes.refused] == ["b.jpg"]  # a new file under an old name
    assert not changes.settings  # the list of files is no setting


def test_a_picture_that_came_back_says_why_it_was_out() -> None:
    old = dataset(row("a"), dropped=(Dropped("b.jpg", "too dark", "dark"),))
    changes = diff(old, dataset(row("a"), row("b"), name="v2"))
    assert [s.reason for s in changes.added] == ["dark: too dark"]
    assert "before: dark: too dark" in as_text(changes)


def test_left_out_on_arrival_is_no_removal() -> None:
    new = dataset(row("a"), name="v2", dropped=(Dropped("x.jpg", "too small", "tiny"),))
    changes = diff(dataset(row("a")), new)
    assert [d.file for d in changes.refused] == ["x.jpg"] and not changes.removed
    assert not diff(dataset(row("a"), dropped=new.dropped), new).refused


def aspects(changes: Changes) -> dict[str, list[tuple[str, str, str]]]:
    return {c.new.source: [(f.aspect, f.before, f.after) for f in c.facts] for c in changes.otherwise}


def test_what_else_changed() -> None:
    old = dataset(
        row("renamed"),
        row("retouched"),
        row("rewritten"),
        row("cropped", box=(0, 0, 64, 64)),
        row("moved"),
        row("licensed"),
        row("redrawn"),
        row("masked"),
        row("enlarged", width=64, height=64),
    )
    new = dataset(
        row("new-name", shows="renamed", caption="zolka, renamed"),
        row("retouched", sha256="other", source_sha256="other file"),
        row("rewritten", source_sha256="other bytes"),
        row("cropped", box=(1, 0, 65, 64), sha256="another part", boxed="hand"),
        row("moved", split="held_out"),
        row("licensed", licence="CC0-1.0"),
        row("redrawn", sha256="on another ground"),
        row("masked", mask="masks/masked.png", hand=False),
        row("enlarged", width=128, height=96, sha256="larger"),
        name="v2",
    )
    changes = diff(old, new, alike=yes)
    assert aspects(changes) == {
        "new-name.jpg": [("name", "renamed.jpg", "new-name.jpg")],
        "retouched.jpg": [("pixels", "file of ", "other fi")],
        "rewritten.jpg": [("file", "file of ", "other by")],
        "cropped.jpg": [("crop", "full [0, 0, 64, 64]", "full [1, 0, 65, 64]")],
        "moved.jpg": [("split", "train", "held out")],
        "licensed.jpg": [("licence", "none", "CC0-1.0")],
        "redrawn.jpg": [("pixels", "pixels o", "on anoth")],
        "masked.jpg": [("mask", "none", "with"), ("hand", "by hand", "by machine")],
        "enlarged.jpg": [("size", "64×64", "128×96")],
    }
    assert not changes.added and not changes.removed and not changes.captions


def test_names_that_were_swapped_are_two_renames() -> None:
    old = dataset(row("a", caption="x"), row("b", caption="x"))
    new = dataset(row("a", shows="b", caption="x"), row("b", shows="a", caption="x"), name="v2")
    assert aspects(diff(old, new)) == {
        "a.jpg": [("name", "b.jpg", "a.jpg")],
        "b.jpg": [("name", "a.jpg", "b.jpg")],
    }


def test_another_picture_under_an_old_name_is_a_new_picture() -> None:
    old, new = dataset(row("a")), dataset(row("a", shows="something else"), name="v2")
    changes = diff(old, new, alike=no)
    assert len(changes.added) == len(changes.removed) == 1 and not changes.changed


def test_crops_come_and_go_with_their_names() -> None:
    old = dataset(row("a"), row("b"))
    new = dataset(row("a"), row("b"), row("b-up", shows="b", sha256="upper", source="b.jpg", crop="upper"), name="v2")
    changes = diff(old, new)
    assert [(label(s.row), s.reason) for s in changes.added] == [("b.jpg (upper)", "its upper crop is newly made")]
    assert [s.reason for s in diff(new, old).removed] == ["its upper crop is no longer made"]


def test_settings_and_of_lists_only_what_differs() -> None:
    rule, other = {"find": "a", "replace": "b"}, {"find": "c", "replace": "d"}
    old = {"resolution": 64, "rules": [rule], "project": {"trigger": "zolka"}, "captioner": {"m": "0" * 64}}
    new = {"resolution": 128, "rules": [rule, other], "project": {"trigger": "zolka"}, "captioner": {"m": "f" * 64}}
    changes = diff(dataset(row("a"), config=old), dataset(row("a"), name="v2", config=new))
    assert [(s.key, s.before, s.after) for s in changes.settings] == [
        ("captioner.m", "00000000", "ffffffff"),
        ("resolution", "64", "128"),
        ("rules", "[]", json.dumps([other])),
    ]


def test_text_prints_as_text() -> None:
    evil = "zolka \x1b[2J\u202e\x07\r\nblue"
    old = dataset(row("a"), row("b", source="\x1b]0;owned\x07.jpg"))
    new = dataset(row("a", caption=evil), name="v2\x1b", dropped=(Dropped("c\x1b.jpg", "w\x1by", "tiny"),))
    text = as_text(diff(old, new))
    assert not set(text) & set("\x1b\x07\r\u202e")
    assert "\\x1b]0;owned\\x07.jpg" in text and "{+\\x1b[2J\\u202e\\x07 blue+}" in text


def test_json_says_the_same() -> None:
    read = json.loads(as_json(diff(dataset(row("a"), row("b")), dataset(row("a", caption="zolka x"), name="v2"))))
    assert read["counts"]["removed"] == 1 and read["counts"]["captions changed"] == 1
    assert read["removed"][0]["row"]["source"] == "b.jpg"
    assert {"kind": "added", "text": "x"} in read["changed"][0]["caption"]


@pytest.fixture
def on_disk(tiny_dataset: Dataset, tmp_path: Path) -> Dataset:
    path = tmp_path / "v1-12345678"
    shutil.copytree(tiny_dataset.path, path)
    return replace(tiny_dataset, path=path)


def redrawn(dataset: Dataset, image: Image.Image) -> Dataset:
    """The dataset with its first picture replaced."""
    path = dataset.path.with_name("v2-12345678")
    shutil.copytree(dataset.path, path)
    image.save(path / dataset.rows[0].file)
    first = replace(dataset.rows[0], sha256=pixels_sha256(image), source_sha256="new")
    return replace(dataset, path=path, rows=(first, *dataset.rows[1:]))


def test_a_retouched_picture_is_told_from_another_of_the_same_name(on_disk: Dataset) -> None:
    pixels = on_disk.pixels(on_disk.rows[0]).astype(float)
    retouched = redrawn(on_disk, Image.fromarray((pixels * 0.8 + 20).astype(np.uint8)))
    changes = diff(on_disk, retouched)
    assert [f.aspect for c in changes.changed for f in c.facts] == ["pixels"] and not changes.added
    shutil.rmtree(retouched.path)
    noise = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    changes = diff(on_disk, redrawn(on_disk, Image.fromarray(noise).resize((64, 64))))
    assert len(changes.added) == len(changes.removed) == 1 and not changes.changed


rows = st.builds(
    row,
    st.sampled_from("abcdef"),
    shows=st.sampled_from("abcdef"),
    caption=st.text(max_size=12),
    crop=st.sampled_from(["full", "upper"]),
    split=st.sampled_from(["train", "held_out"]),
)
datasets = st.lists(rows, max_size=8).map(lambda found: dataset(*found))


@given(datasets)
def test_nothing_differs_from_itself(some: Dataset) -> None:
    changes = diff(some, some, alike=no)
    assert changes.is_empty and changes.unchanged == len(some.rows)


@given(datasets, datasets, st.booleans())
def test_the_other_direction_swaps_added_and_removed(one: Dataset, other: Dataset, answer: bool) -> None:
    there = diff(one, other, alike=lambda a, b: answer)
    back = diff(other, one, alike=lambda a, b: answer)
    assert [s.row for s in there.added] == [s.row for s in back.removed]
    assert [s.row for s in there.removed] == [s.row for s in back.added]
    assert {(c.old, c.new) for c in there.changed} == {(c.new, c.old) for c in back.changed}
    assert there.unchanged == back.unchanged
    assert len(one.rows) == len(there.removed) + len(there.changed) + there.unchanged
    assert len(other.rows) == len(there.added) + len(there.changed) + there.unchanged
    as_text(there).encode()
    json.loads(as_json(there))
