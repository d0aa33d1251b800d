"""Pictures from a zip or tar archive. Members are read one at a time into memory; nothing is ever unpacked onto disk.

An archive is as hostile as a server: its paths, its sizes and what it unpacks to are bounded here.
"""

import bz2
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final, Self

from vez.collect.candidate import Candidate, Refused, Source
from vez.collect.entries import is_hidden, kind_of, readable
from vez.errors import DataError
from vez.images.provenance import Provenance

MOST_MEMBERS: Final = 100_000
MOST_RATIO: Final = 100  # times its own size that an archive may unpack to, besides 20 of the largest pictures allowed
_MOST_DIRECTORY: Final = 40_000_000  # bytes of a zip's table of members, all of which is read at once
_MOST_HEADER: Final = 1_000_000  # bytes of a tar's long names and extended headers, each read at once
_MOST_GLOBAL: Final = 1000  # settings that a tar makes for all members that follow
_HEADERS: Final = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_LZMA_MEMORY: Final = 200_000_000  # bytes that xz may ask for; its strongest preset needs 65 million
_CHUNK: Final = 1 << 16
_DAMAGED: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RuntimeError,  # NotImplementedError is one: a packing that zipfile lacks
)


def from_archive(path: Path, *, most_bytes: int) -> Source:
    """The pictures in a zip, tar, tar.gz, tar.bz2, tar.xz (and tar.zst from Python 3.14 on), in the archive's order.

    The key is "archive.zip!path/in/it". A candidate's ``read`` must be called before the next one is asked for; it
    raises DataError where the member is damaged or has more than ``most_bytes`` bytes. Links, devices, encrypted
    members, archives inside the archive and paths that lead out of it are refused.

    Raises DataError, at once or at the place where it shows, for what is no archive, is damaged, has more than 100,000
    members, or unpacks to more than 100 times its size.
    """
    try:
        with open(path, "rb") as file:
            head, size = file.read(8), path.stat().st_size
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    most = max(20 * most_bytes, MOST_RATIO * size)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(path, most_bytes, most)
    return _tar(path, _decompressor(head, path), most_bytes, most)


def _entry(archive: Path, name: str, seen: dict[str, int], read: Callable[[], bytes]) -> Candidate:
    """A member as a candidate; the second of one name is told apart by its number."""
    seen[name] = seen.get(name, 0) + 1
    key = f"{name}#{seen[name]}" if seen[name] > 1 else name
    record = Provenance("", origin="archive", url=f"{readable(archive.name)}/{key}")
    return Candidate(f"{readable(archive.name)}!{key}", name.rstrip("/").rpartition("/")[2], read, record)


def _refusal(name: str, size: int, most_bytes: int) -> str | None:
    """Why a member of such a name and size is not taken; empty: it is; None: nothing need be said."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        return "its path leads out of the archive"
    parts = [part for part in parts if part not in ("", ".")]
    kind = kind_of(parts[-1]) if parts else "beside"
    if kind == "beside" or any(is_hidden(part) for part in parts):
        return None
    if kind == "archive":
        return "it is an archive inside the archive; unpack it, and collect from it by itself"
    return f"it has {size:,} bytes, more than {most_bytes:,}" if size > most_bytes else ""


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} is damaged or cut short ({error or type(error).__name__}); get it again")


def _too_many(path: Path) -> DataError:
    return DataError(f"{path} has more than {MOST_MEMBERS:,} members; split it")


def _bomb(path: Path, most: int) -> DataError:
    return DataError(f"{path} unpacks to more than {most:,} bytes, as archives made to do harm do; unpack it yourself")


def _zip(path: Path, most_bytes: int, most: int) -> Source:
    """PKWARE APPNOTE 6.3.10."""
    spent = 0

    def read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
        nonlocal spent
        try:
            with archive.open(member) as file:
                data = file.read(most_bytes + 1)
        except _DAMAGED as error:
            raise DataError(f"it is damaged in the archive ({error})") from error
        spent += len(data)
        if len(data) > most_bytes:
            raise DataError(f"it has more than {most_bytes:,} bytes")
        return data

    try:
        if _directory_size(path) > _MOST_DIRECTORY:
            raise _too_many(path)
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    with archive:
        if len(archive.infolist()) > MOST_MEMBERS:
            raise _too_many(path)
        seen: dict[str, int] = {}
        for member in archive.infolist():
            if spent > most:
                raise _bomb(path, most)
            name = _zip_name(member)
            why = _zip_refusal(member) if not member.filename.endswith("/") else None
            why = _refusal(name, member.file_size, most_bytes) if why == "" else why
            entry = _entry(path, name, seen, partial(read, archive, member))
            if why is not None:
                yield Refused(entry.key, why) if why else entry


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Without the flag for UTF-8, names are code page 437 by the letter, and UTF-8 all the same by many writers."""
    name = member.filename
    if not member.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return readable(name)


def _zip_refusal(member: zipfile.ZipInfo) -> str:
    mode = member.external_attr >> 16 if member.create_system == 3 else 0  # 3: Unix, whose modes it then holds
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "it is a link" if stat.S_ISLNK(mode) else "it is no file"
    if member.flag_bits & 1:
        return "it is encrypted; unpack it with its password, and collect from the folder"
    # The others are decompressed without a bound by Python: some kilobytes of bzip2 make gigabytes.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "it is compressed in a way that vez does not read; pack it as an ordinary zip"
    return ""


def _directory_size(path: Path) -> int:
    """Bytes of a zip's table of members, by the record at its end, or by the larger one that zip64 puts before it."""
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        start = file.seek(max(0, end - 22 - 65_535 - 20))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0:
            raise EOFError("its table of members is missing")
        size = int.from_bytes(tail[at + 12 : at + 16], "little")
        locator = tail[max(0, at - 20) : at]
        if locator.startswith(b"PK\x06\x07"):
            # where it says, and where Python looks for it
            for place in (int.from_bytes(locator[8:16], "little"), start + at - 20 - 56):
                file.seek(min(max(0, place), end))
                record = file.read(56)
                if record.startswith(b"PK\x06\x06"):
                    size = max(size if size != 0xFFFFFFFF else 0, int.from_bytes(record[40:48], "little"))
    return size


def _decompressor(head: bytes, path: Path) -> Callable[[], Any] | None:
    """What unpacks a tar, by its first bytes; None: nothing is packed. Raises DataError where Python cannot."""
    if head.startswith(b"\x1f\x8b"):
        return partial(zlib.decompressobj, wbits=31)
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if head.startswith(b"\xfd7zXZ\0"):
        return partial(lzma.LZMADecompressor, memlimit=_LZMA_MEMORY)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        try:
            found: Callable[[], Any] = import_module("compression.zstd").ZstdDecompressor
        except ImportError as error:
            raise DataError(f"{path} is packed with zstd, which Python reads from 3.14 on; unpack it first") from error
        return found
    return None


def _chunks(file: IO[bytes], new: Callable[[], Any] | None) -> Iterator[bytes]:
    """The bytes of a packed file, never more than a chunk at once. Raises EOFError where it is cut short."""
    if new is None:
        yield from iter(partial(file.read, _CHUNK), b"")
        return
    machine, waiting, ended = new(), b"", False
    while True:
        if not waiting and getattr(machine, "needs_input", True):
            waiting = file.read(_CHUNK)
            ended = not waiting
        out = machine.decompress(waiting, _CHUNK)
        waiting = getattr(machine, "unconsumed_tail", b"")  # zlib's; the others keep it themselves
        if out:
            yield out
        if machine.eof:  # several streams may stand one after the other, and zeros behind them
            waiting = machine.unused_data or file.read(_CHUNK)
            if not waiting.strip(b"\0"):
                return
            machine = new()
        elif ended and not out:
            raise EOFError("it ends too early")


class _Stream:
    """What `tarfile` reads from: chunks joined and cut as it asks for them, up to a bound."""

    def __init__(self, chunks: Iterator[bytes], most: int, path: Path) -> None:
        self._chunks, self._left, self._most, self._path = chunks, most, most, path
        self._waiting = bytearray()

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes. Raises DataError beyond the bound."""
        while len(self._waiting) < size and (chunk := next(self._chunks, b"")):
            self._left -= len(chunk)
            if self._left < 0:
                raise _bomb(self._path, self._most)
            self._waiting += chunk
        data = bytes(self._waiting[:size])
        del self._waiting[:size]
        return data


class _Member(tarfile.TarInfo):
    """A member whose headers are looked at before `tarfile` reads what they announce."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        """As `tarfile`'s. Raises DataError for a header beyond belief."""
        member = super().frombuf(buf, encoding or "utf-8", errors)
        if member.size < 0 or (member.type in _HEADERS and member.size > _MOST_HEADER):
            raise DataError("the archive announces a header of impossible size; get it again")
        return member


def _tar(path: Path, new: Callable[[], Any] | None, most_bytes: int, most: int) -> Source:
    """POSIX.1-1988 ustar, POSIX.1-2001 pax, GNU tar; as a stream, so that no offset can lead backwards."""
    seen: dict[str, int] = {}
    with open(path, "rb") as file, _opened_tar(_Stream(_chunks(file, new), most, path), path) as archive:
        for _ in range(MOST_MEMBERS + 1):
            member = _next(archive, path)
            if member is None:
                return
            name = readable(member.name)
            why = _tar_refusal(member) if not member.isdir() else None
            why = _refusal(name, member.size, most_bytes) if why == "" else why
            entry = _entry(path, name, seen, partial(_read_member, archive, member))
            if why is not None:
                yield Refused(entry.key, why) if why else entry
        raise _too_many(path)


def _opened_tar(stream: Any, path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member, encoding="utf-8")
    except DataError:
        raise
    except _DAMAGED as error:
        why = f"no archive that vez reads, or is damaged or cut short ({error})"
        raise DataError(f"{path} is {why}; get it again") from error


def _next(archive: Any, path: Path) -> tarfile.TarInfo | None:
    try:
        member: tarfile.TarInfo | None = archive.next()
    except DataError:
        raise
    except _DAMAGED as error:
        raise _damaged(path, error) from error
    archive.members = []  # which it would keep for another reading
    if len(archive.pax_headers) > _MOST_GLOBAL:
        raise _damaged(path, ValueError("its headers have no end"))
    return member


def _tar_refusal(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return "it is a link"
    return "it is no file" if not member.isreg() or member.issparse() else ""


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        file = archive.extractfile(member)
        data = file.read() if file is not None else b""
    except _DAMAGED as error:
        raise DataError(f"it is damaged in the archive ({error})") from error
    if len(data) != member.size:
        raise DataError("it is cut short in the archive")
    return data
