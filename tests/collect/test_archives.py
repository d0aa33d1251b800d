import bz2
import gzip
import io
import lzma
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vez.collect import archives
from vez.collect.archives import from_archive
from vez.collect.candidate import Refused
from vez.errors import DataError
from vez.images.provenance import Provenance

MOST = 100_000
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}


def read_all(path: Path, *, most_bytes: int = MOST) -> tuple[dict[str, bytes], dict[str, str]]:
    """What is taken, and what is refused and why, whether before reading or by it."""
    taken, refused = {}, {}
    for entry in from_archive(path, most_bytes=most_bytes):
        if isinstance(entry, Refused):
            refused[entry.key] = entry.reason
            continue
        try:
            taken[entry.key] = entry.read()
        except DataError as error:
            refused[entry.key] = str(error)
    return taken, refused


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(*members: tuple[tarfile.TarInfo | str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, encoding="utf-8") as archive:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


MEMBERS = {
    "a.jpg": b"first",
    "deep/er/b.png": b"second" * 1000,
    "notes.txt": b"words",
    "__MACOSX/._a.jpg": b"fork",
    "deep/.hidden.jpg": b"hidden",
    "inner.zip": b"PK",
    "c": b"no suffix",
}


def test_a_zip(tmp_path: Path) -> None:
    path = zipped(tmp_path / "heap.zip", {"folder/": b"", **MEMBERS})
    taken, refused = read_all(path)
    assert taken == {
        "heap.zip!a.jpg": b"first",
        "heap.zip!deep/er/b.png": b"second" * 1000,
        "heap.zip!c": b"no suffix",
    }
    assert list(refused) == ["heap.zip!inner.zip"] and "archive inside" in refused["heap.zip!inner.zip"]
    first = next(from_archive(path, most_bytes=MOST))
    assert not isinstance(first, Refused) and first.name == "a.jpg"
    assert first.provenance == Provenance("", origin="archive", url="heap.zip/a.jpg")


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar(tmp_path: Path, suffix: str, format: int) -> None:
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    long = "x" * 90 + "/" + "y" * 60 + ".jpg"
    path = tmp_path / f"heap{suffix}"
    path.write_bytes(PACKERS[suffix](tarred((folder, b""), *MEMBERS.items(), (long, b"long"), format=format)))
    taken, refused = read_all(path)
    name = f"heap{suffix}!"
    assert taken == {
        name + "a.jpg": b"first",
        name + "deep/er/b.png": b"second" * 1000,
        name + "c": b"no suffix",
        name + long: b"long",
    }
    assert list(refused) == [name + "inner.zip"]


def test_several_streams_in_one_file(tmp_path: Path) -> None:
    whole = tarred(("a.jpg", b"1" * 5000), ("b.jpg", b"2" * 5000))
    for suffix in (".tar.gz", ".tar.bz2", ".tar.xz"):
        path = tmp_path / f"heap{suffix}"
        path.write_bytes(PACKERS[suffix](whole[:3000]) + PACKERS[suffix](whole[3000:]) + bytes(512))
        assert len(read_all(path)[0]) == 2


@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/../../b.jpg", "/etc/a.jpg", "..\\a.jpg", "C:\\a.jpg", "c:a.jpg", "\\\\server\\a.jpg"]
)
def test_paths_that_lead_out(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "heap.zip", {name: b"x", "fine.jpg": b"y"})
    taken, refused = read_all(path)
    assert len(taken) == 1 and all("leads out" in reason for reason in refused.values()) and refused
    (tmp_path / "heap.tar").write_bytes(tarred((name, b"x"), ("fine.jpg", b"y")))
    taken, refused = read_all(tmp_path / "heap.tar")
    assert len(taken) == 1 and all("leads out" in reason for reason in refused.values()) and refused


def test_links_and_devices(tmp_path: Path) -> None:
    members = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"{kind.decode()}.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        members.append((info, b""))
    (tmp_path / "heap.tar").write_bytes(tarred(*members, ("fine.jpg", b"y")))
    taken, refused = read_all(tmp_path / "heap.tar")
    assert list(taken) == ["heap.tar!fine.jpg"] and len(refused) == 5
    assert refused["heap.tar!2.jpg"] == refused["heap.tar!1.jpg"] == "it is a link"
    with zipfile.ZipFile(tmp_path / "heap.zip", "w") as archive:
        for name, mode in (("link.jpg", 0o120777), ("pipe.jpg", 0o010644), ("plain.jpg", 0o100644)):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, b"/etc/passwd")
    taken, refused = read_all(tmp_path / "heap.zip")
    assert list(taken) == ["heap.zip!plain.jpg"]
    assert refused == {"heap.zip!link.jpg": "it is a link", "heap.zip!pipe.jpg": "it is no file"}


def test_nothing_is_written_beside_the_archive(tmp_path: Path) -> None:
    path = zipped(tmp_path / "heap.zip", {"../a.jpg": b"x", "b.jpg": b"y"})
    read_all(path)
    assert list(tmp_path.iterdir()) == [path]


def test_an_encrypted_member_and_odd_packing(tmp_path: Path) -> None:
    path = zipped(tmp_path / "heap.zip", {"a.jpg": b"x" * 100})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "encrypted" in read_all(path)[1]["heap.zip!a.jpg"]
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        _, refused = read_all(zipped(tmp_path / "other.zip", {"a.jpg": b"x" * 100}, method))
        assert "ordinary zip" in refused["other.zip!a.jpg"]


def test_one_name_twice(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "heap.zip", "w") as archive:
        for data in (b"1", b"2"):
            archive.writestr("a.jpg", data)
    assert read_all(tmp_path / "heap.zip")[0] == {"heap.zip!a.jpg": b"1", "heap.zip!a.jpg#2": b"2"}
    (tmp_path / "heap.tar").write_bytes(tarred(("a.jpg", b"1"), ("a.jpg", b"2"), ("a.txt", b""), ("a.txt", b"")))
    assert read_all(tmp_path / "heap.tar")[0] == {"heap.tar!a.jpg": b"1", "heap.tar!a.jpg#2": b"2"}


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    path = zipped(tmp_path / "heap.zip", {"caf_.jpg": b"1", "nosnja_.jpg": b"2"})
    data = path.read_bytes().replace(b"caf_", b"caf\xe9").replace(b"nosnja_", b"no\xc5\xa1nja")  # Latin-1; UTF-8
    path.write_bytes(data)
    assert list(read_all(path)[0]) == ["heap.zip!cafΘ.jpg", "heap.zip!nošnja.jpg"]
    old = tarred(("caf_.jpg", b"1"), format=tarfile.GNU_FORMAT)
    at = old.index(b"caf_.jpg")
    header = bytearray(old[at : at + 512].replace(b"caf_", b"caf\xe9"))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "heap.tar").write_bytes(old[:at] + header + old[at + 512 :])
    (key,) = read_all(tmp_path / "heap.tar")[0]
    assert key.encode() == b"heap.tar!caf\\udce9.jpg"


def test_a_member_that_is_too_large(tmp_path: Path) -> None:
    members = {"large.jpg": bytes(MOST + 1), "fits.jpg": bytes(MOST)}
    path = zipped(tmp_path / "heap.zip", members)
    (tmp_path / "heap.tar.gz").write_bytes(gzip.compress(tarred(*members.items())))
    for archive in (path, tmp_path / "heap.tar.gz"):
        taken, refused = read_all(archive)
        assert list(taken) == [f"{archive.name}!fits.jpg"]
        assert "more than 100,000" in refused[f"{archive.name}!large.jpg"]


def test_a_zip_that_lies_about_sizes(tmp_path: Path) -> None:
    path = zipped(tmp_path / "heap.zip", {"a.jpg": bytes(30 * MOST)})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(data)
    tracemalloc.start()
    taken, refused = read_all(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert not taken and refused and peak < 10 * MOST


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_bomb(tmp_path: Path, suffix: str) -> None:
    """Members that are small enough one by one, and 60 times too many."""
    path = tmp_path / f"bomb{suffix}"
    members = {f"{i}.jpg": bytes(20_000) for i in range(1200)}
    if suffix == ".zip":
        zipped(path, members)
    else:
        path.write_bytes(PACKERS[suffix](tarred(*members.items())))
    taken = peak = 0
    tracemalloc.start()
    with pytest.raises(DataError, match="unpacks to more than"):
        for entry in from_archive(path, most_bytes=1000 if suffix != ".zip" else 20_000):
            if not isinstance(entry, Refused):
                taken += len(entry.read())
            peak = tracemalloc.get_traced_memory()[1]  # here: what pytest does with the error costs more
    tracemalloc.stop()
    size = max(20 * 20_000, archives.MOST_RATIO * path.stat().st_size)
    assert taken <= size + 20_000 and peak < 10_000_000  # xz: its dictionary


def test_a_zip_whose_members_share_their_bytes(tmp_path: Path) -> None:
    """Fifield, "A better zip bomb" (WOOT 2019): one kernel, many entries in the table."""
    path = zipped(tmp_path / "bomb.zip", {"0.jpg": bytes(MOST)})
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[at:end]
    table = entry * 5000
    record = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 5000, 5000, len(table), at, 0)
    path.write_bytes(data[:at] + table + record)
    with pytest.raises(DataError, match="unpacks to more than"):
        read_all(path, most_bytes=MOST)


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 3)
    members = {f"{i}.jpg": b"x" for i in range(4)}
    path = zipped(tmp_path / "heap.zip", members)
    (tmp_path / "heap.tar").write_bytes(tarred(*members.items()))
    for archive in (path, tmp_path / "heap.tar"):
        with pytest.raises(DataError, match="more than 3 members"):
            read_all(archive)
    members.popitem()
    assert len(read_all(zipped(tmp_path / "fits.zip", members))[0]) == 3


@pytest.mark.parametrize("wide", [False, True])
def test_a_table_of_members_that_is_too_long_is_not_read(tmp_path: Path, wide: bool) -> None:
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 9, 9, 0xFFFFFFFF if wide else 2**31, 0, 0)
    if wide:
        record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 9, 9, 2**40, 0)
        end = record + struct.pack("<4sIQI", b"PK\x06\x07", 0, 4, 1) + end
    (tmp_path / "heap.zip").write_bytes(b"PK\x03\x04" + end)
    with pytest.raises(DataError, match="members"):
        read_all(tmp_path / "heap.zip")


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_tar_that_announces_a_header_of_gigabytes(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = kind, 2**33
    (tmp_path / "bomb.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    with pytest.raises(DataError, match="impossible size"):
        read_all(tmp_path / "bomb.tar")


def test_headers_without_end(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = b"g", 512
    body = b"".join(
        info.tobuf(tarfile.GNU_FORMAT) + f"14 key{i:04}=x\n".encode().ljust(512, b"\0") for i in range(5000)
    )
    (tmp_path / "bomb.tar").write_bytes(body)
    with pytest.raises(DataError, match="damaged"):
        read_all(tmp_path / "bomb.tar")


def test_a_size_below_zero_does_not_go_round_for_ever(tmp_path: Path) -> None:
    pax = b"16 size=-1024\n".replace(b"16", b"14")
    head = tarfile.TarInfo("p")
    head.type, head.size = b"x", len(pax)
    body = head.tobuf(tarfile.USTAR_FORMAT) + pax.ljust(512, b"\0") + tarfile.TarInfo("a.jpg").tobuf() + bytes(2048)
    (tmp_path / "bomb.tar").write_bytes(body)
    start = time.process_time()
    try:
        taken, _ = read_all(tmp_path / "bomb.tar")
        assert not any(taken.values())
    except DataError as error:
        assert "damaged" in str(error)
    assert time.process_time() - start < 5


def test_xz_that_asks_for_much_memory(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 29}]
    data = tarred(("a.jpg", b"x"))
    (tmp_path / "heap.tar.xz").write_bytes(lzma.compress(data, filters=filters))
    with pytest.raises(DataError, match="damaged"):
        read_all(tmp_path / "heap.tar.xz")


@pytest.mark.parametrize("suffix", [".zip", *PACKERS])
def test_a_damaged_archive_is_loud(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"heap{suffix}"
    dice = bytes((i * 7919 + (i >> 3) * 104729) % 251 for i in range(60_000))  # does not pack well
    members = {"a.jpg": dice[:30_000], "b.jpg": dice[30_000:]}
    if suffix == ".zip":
        zipped(path, members)
    else:
        path.write_bytes(PACKERS[suffix](tarred(*members.items())))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged or cut short"):
        for entry in from_archive(path, most_bytes=MOST):
            assert not isinstance(entry, Refused)


def test_one_damaged_member_of_a_zip_is_refused_alone(tmp_path: Path) -> None:
    path = zipped(tmp_path / "heap.zip", {"a.jpg": b"first" * 50, "b.jpg": b"second"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"firstfirst", b"firstFirst", 1))
    taken, refused = read_all(path)
    assert list(taken) == ["heap.zip!b.jpg"] and "damaged" in refused["heap.zip!a.jpg"]


@pytest.mark.parametrize(
    "data", [b"", b"words", bytes(2000), b"Rar!\x1a\x07", b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06"]
)
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "heap").write_bytes(data)
    try:
        assert read_all(tmp_path / "heap") == ({}, {})
        assert not data.strip(b"\0")
    except DataError as error:
        assert "archive" in str(error) or "damaged" in str(error)
    with pytest.raises(DataError, match="cannot be read"):
        from_archive(tmp_path / "none.zip", most_bytes=MOST)


def test_zstd_is_named_where_python_cannot(tmp_path: Path) -> None:
    (tmp_path / "heap.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    with pytest.raises(DataError, match=r"zstd|damaged"):
        read_all(tmp_path / "heap.tar.zst")


def test_a_member_without_a_name(tmp_path: Path) -> None:
    """zipfile ends a name at its first zero byte, and then cannot say whether it is a folder's."""
    path = zipped(tmp_path / "heap.zip", MEMBERS)
    whole, _ = read_all(path)
    path.write_bytes(path.read_bytes().replace(b"a.jpg", b"\0.jpg"))
    taken, _ = read_all(path)
    assert taken == {key: content for key, content in whole.items() if not key.endswith("!a.jpg")}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".zip", *PACKERS]))
def test_any_damage_is_a_data_error_or_passes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzzed{suffix}"
    if suffix == ".zip":
        whole = bytearray(zipped(path, MEMBERS).read_bytes())
    else:
        whole = bytearray(PACKERS[suffix](tarred(*MEMBERS.items())))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(1, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        taken, refused = read_all(path)
    except DataError as error:
        assert str(error)
    else:
        assert all(len(content) <= MOST for content in taken.values()) and all(refused.values())
