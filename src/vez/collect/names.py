"""File names for pictures: a safe one of whatever a server or an archive calls them, with the suffix they deserve."""

import re
import unicodedata
from collections.abc import Collection
from typing import Final

from vez.errors import DataError

_LONGEST: Final = 80  # characters of name and suffix together
# Windows opens a device under these names, whatever their suffix.
_DEVICES: Final = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
_KNOWN_SUFFIX: Final = re.compile(r"\.(jpe?g|jpe|jfif|png|webp|avif|gif|bmp|tiff?|heic|heif)$", re.IGNORECASE)
_AVIF: Final = (b"avif", b"avis")
_HEIF: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def suffix_of(data: bytes) -> str:
    """The suffix that a picture's first bytes ask for (".jpg", ".png", …). Raises DataError for an unknown kind."""
    if data[4:8] == b"ftyp":
        brands = {data[8:12]} | {data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 64), 4)}
        if brands & set(_AVIF):
            return ".avif"
        if brands & set(_HEIF):
            return ".heic"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    for start, suffix in (
        (b"\xff\xd8", ".jpg"),
        (b"\x89PNG", ".png"),
        (b"GIF8", ".gif"),
        (b"BM", ".bmp"),
        (b"II*\x00", ".tif"),
        (b"MM\x00*", ".tif"),
        (b"II+\x00", ".tif"),
        (b"MM\x00+", ".tif"),
    ):
        if data.startswith(start):
            return suffix
    raise DataError("it is of no kind of picture that vez knows the suffix of")


def safe_name(wished: str, suffix: str, taken: Collection[str]) -> str:
    """A name for a new picture: no path, nothing that a shell, a file system or a caption's name trips over.

    ``taken`` holds the stems in the folder as `stem_of` gives them: a stem is used once, whatever the suffix, since a
    caption belongs to a stem. At most 80 characters; its stem has no dot (".upper" names a crop).
    """
    name = unicodedata.normalize("NFC", wished).replace("\\", "/").rstrip("/").rpartition("/")[2]
    stem = _KNOWN_SUFFIX.sub("", name)
    stem = "".join(c if c.isalnum() or c in "-_()" else "_" for c in stem)
    stem = re.sub(r"_{2,}", "_", stem).strip("_-")
    stem = stem[: _LONGEST - len(suffix)].rstrip("_-")
    while len(stem.encode()) > 200:  # file systems count bytes, up to 255
        stem = stem[:-1]
    if not stem or stem.lower() in _DEVICES:
        stem = f"picture_{stem}".rstrip("_")
    candidate, number = stem, 2
    while stem_of(candidate) in taken:
        tail = f"_{number}"
        candidate, number = stem[: _LONGEST - len(suffix) - len(tail)] + tail, number + 1
    return candidate + suffix


def stem_of(name: str) -> str:
    """What two names share that must not lie in one folder: the part before the suffix, whatever its case."""
    stem, dot, _ = name.rpartition(".")
    return unicodedata.normalize("NFKC", stem if dot and stem else name).casefold()
