import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vez.collect.candidate import Candidate, Refused
from vez.collect.folders import from_folder
from vez.errors import DataError
from vez.images import provenance
from vez.images.provenance import Provenance


def found(folder: Path) -> tuple[dict[str, Candidate], dict[str, str]]:
    taken, refused = {}, {}
    for entry in from_folder(folder):
        if isinstance(entry, Refused):
            refused[entry.key] = entry.reason
        else:
            taken[entry.key] = entry
    return taken, refused


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def test_subfolders_by_name_and_nothing_hidden(tmp_path: Path) -> None:
    names = ["b.jpg", "a/z.PNG", "a/deep/er/x", "c d/é.webp", "a.zip.d/y.gif", "notes.txt.d/w.bmp"]
    put(tmp_path, *names, ".hidden.jpg", ".git/a.jpg", "__MACOSX/._b.jpg", "a/.DS_Store")
    taken, refused = found(tmp_path)
    assert list(taken) == sorted(names, key=lambda name: name.split("/")) and not refused
    assert taken["a/z.PNG"].name == "z.PNG" and taken["a/z.PNG"].read() == b"a/z.PNG"
    assert taken["b.jpg"].provenance == Provenance("", origin="folder")


def test_what_lies_beside_pictures_is_passed_over_and_archives_are_not(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "a.txt", "a.caption", "boxes.toml", "metadata.jsonl", "more.zip", "old.tar.gz")
    taken, refused = found(tmp_path)
    assert list(taken) == ["a.jpg"] and set(refused) == {"more.zip", "old.tar.gz"}
    assert all("archive" in reason for reason in refused.values())


def test_records_go_along(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "sub/c.jpg")
    known = Provenance(
        "a.jpg", sha256="1", original_sha256="2", origin="commons", author="A", licence="CC0-1.0", retrieved="2024"
    )
    provenance.write(tmp_path, [known])
    provenance.write(tmp_path / "sub", [Provenance("c.jpg", author="C")])
    taken, _ = found(tmp_path)
    assert taken["a.jpg"].provenance == Provenance("", origin="commons", author="A", licence="CC0-1.0")
    assert taken["b.jpg"].provenance == Provenance("", origin="folder")
    assert taken["sub/c.jpg"].provenance == Provenance("", origin="folder", author="C")


def test_a_damaged_record_is_loud(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / provenance.FILE).write_text('{"file": "a.jpg", "license": "CC0"}')
    with pytest.raises(DataError, match="license"):
        found(tmp_path)


def test_links(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    put(inside, "a.jpg", "sub/b.jpg")
    put(outside, "secret.jpg")
    (inside / "inner.jpg").symlink_to(inside / "sub" / "b.jpg")
    (inside / "outer.jpg").symlink_to(outside / "secret.jpg")
    (inside / "up").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    (inside / "round.jpg").symlink_to(inside / "round.jpg")
    (inside / "gone.jpg").symlink_to(inside / "nothing.jpg")
    taken, refused = found(inside)
    assert list(taken) == ["a.jpg", "inner.jpg", "sub/b.jpg"] and taken["inner.jpg"].read() == b"sub/b.jpg"
    assert set(refused) == {"outer.jpg", "up", "loop", "round.jpg", "gone.jpg"}
    assert "out of the folder" in refused["outer.jpg"] and "link to a folder" in refused["loop"]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(found(tmp_path / "link")[0]) == ["a.jpg"]


def test_what_is_no_file(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as plug:  # a socket's path is short
        plug.bind(f"{short}/s.jpg")
        assert found(Path(short))[1] == {"s.jpg": "it is a socket, not a file"}
    taken, refused = found(tmp_path)
    assert list(taken) == ["a.jpg"] and refused == {"pipe.jpg": "it is a named pipe, not a file"}
    (tmp_path / "a.jpg").unlink()
    os.mkfifo(tmp_path / "a.jpg")  # put there between the listing and the reading: not waited for
    with pytest.raises(DataError, match="no longer a file"):
        taken["a.jpg"].read()


def test_a_file_that_is_gone_or_too_large(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    first, second = from_folder(tmp_path, most_bytes=4)
    (tmp_path / "a.jpg").unlink()
    assert isinstance(first, Candidate) and isinstance(second, Candidate)
    with pytest.raises(DataError, match="cannot be read"):
        first.read()
    with pytest.raises(DataError, match="more than 4 bytes"):
        second.read()


@pytest.mark.parametrize("name", ["none", "file"])
def test_what_is_no_folder(tmp_path: Path, name: str) -> None:
    put(tmp_path, "file")
    with pytest.raises(DataError, match="cannot be read as a folder"):
        from_folder(tmp_path / name)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg"), "wb") as file:
        file.write(b"x")
    (candidate,) = from_folder(tmp_path)
    assert isinstance(candidate, Candidate) and candidate.read() == b"x"
    assert candidate.key.encode() == b"caf\\udce9.jpg" and candidate.name == candidate.key


@settings(max_examples=30, deadline=None)
@given(names=st.sets(st.from_regex(r"[a-c]{1,2}(/[a-c]{1,2}){0,3}\.(jpg|png|txt)", fullmatch=True), max_size=12))
def test_every_picture_is_found_once_and_nothing_changes(names: set[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put(folder, *names)
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        taken, refused = found(folder)
        assert set(taken) == {name for name in names if not name.endswith(".txt")} and not refused
        assert all(candidate.read() == key.encode() for key, candidate in taken.items())
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
