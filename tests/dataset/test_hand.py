import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.dataset import hand
from vez.errors import DataError


def write(folder: Path, **files: bytes) -> None:
    for name, data in files.items():
        (folder / name.replace("__", ".")).write_bytes(data)


def test_captions_are_read_by_stem_and_crop(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a girl")
    (tmp_path / "a.upper.txt").write_text("her face")
    (tmp_path / "b.CAPTION").write_text("a boy")
    for other in ("._a.txt", ".hidden.txt", "notes.md", "a.json"):
        (tmp_path / other).write_text("no caption")
    (tmp_path / "folder.txt").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    assert hand.read(tmp_path) == {"a": b"a girl", "a.upper": b"her face", "b": b"a boy"}
    assert hand.read(None) == {}


def test_an_absent_folder_and_captions_that_contradict_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        hand.read(tmp_path / "absent")
    (tmp_path / "a.txt").write_text("a girl")
    (tmp_path / "a.caption").write_text("a girl")
    assert hand.read(tmp_path) == {"a": b"a girl"}
    (tmp_path / "a.caption").write_text("a boy")
    with pytest.raises(DataError, match="two captions that differ"):
        hand.read(tmp_path)
    (tmp_path / "a.caption").unlink()
    (tmp_path / "b.txt").write_bytes(b"a" * 100_001)
    with pytest.raises(DataError, match="larger than 100000 bytes"):
        hand.read(tmp_path)


def test_what_cannot_be_used_is_a_finding() -> None:
    captions = {
        "plain": "ношња,\r\n a  girl\n".encode(),
        "bom": b"\xef\xbb\xbfa girl",
        "latin": "señora".encode("latin-1"),
        "utf16": "a girl".encode("utf-16"),
        "utf16le": "a girl".encode("utf-16-le"),
        "blank": b" \n",
        "plian": b"a girl",
        "gone": b"a girl",
        "zzz": b"a girl",
    }
    wanted = ["said", "plain", "bom", "latin", "utf16", "utf16le", "blank", "plain"]
    texts, findings = hand.texts(captions, wanted, left_out=["gone"])
    assert texts == {"plain": "ношња, a girl", "bom": "a girl"}
    assert [(f.file, f.check, f.level) for f in findings] == [
        ("latin.txt", "caption-encoding", "error"),
        ("utf16.txt", "caption-encoding", "error"),
        ("utf16le.txt", "caption-encoding", "error"),
        ("blank.txt", "caption-missing", "error"),
        ("plian.txt", "caption-unused", "warning"),
        ("zzz.txt", "caption-unused", "warning"),
    ]
    assert "perhaps to plain.txt" in findings[4].fix and "perhaps" not in findings[5].fix


@given(st.dictionaries(st.text(), st.one_of(st.binary(), st.text().map(str.encode))), st.lists(st.text()))
def test_every_caption_is_used_or_spoken_of(captions: dict[str, bytes], wanted: list[str]) -> None:
    wanted = [*wanted, *list(captions)[::2]]
    texts, findings = hand.texts(captions, wanted)
    assert len(texts) + len(findings) == len(captions) and set(texts) <= set(wanted) & set(captions)
    assert all(text and text == " ".join(text.split()) for text in texts.values())


def test_lines_are_joined_or_kept_to_be_drawn_from() -> None:
    captions = {"a": b"a  {red|green} hat\r\n\n a doll\r"}
    assert hand.texts(captions, ["a"])[0] == {"a": "a {red|green} hat a doll"}
    assert hand.texts(captions, ["a"], lines="draw")[0] == {"a": "a {red|green} hat\na doll"}
    assert hand.texts({"a": b"\n \n"}, ["a"], lines="draw")[1][0].check == "caption-missing"
