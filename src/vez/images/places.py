"""Does a block of metadata tell where a picture was taken? And the same block, to the byte as long, without that.

Blocks: EXIF (a TIFF structure: TIFF 6.0, EXIF 2.32, BigTIFF), XMP (ISO 16684-1), IPTC-IIM 4.2, and the Photoshop
resources that hold it. In which files the blocks lie is `vez.images.metadata`'s matter. No offset or count is trusted.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise, zip_longest
from typing import Final, Literal

from vez.errors import DataError

Span = tuple[int, int]  # start and end, in bytes
_Role = Literal["image", "exif", "gps"]

# Of all directories together: overlapping ones could make millions out of a small file.
_MOST_DIRECTORIES: Final = 512
_MOST_ENTRIES: Final = 50_000
_MOST_THUMBNAIL: Final = 1_000_000  # bytes of a thumbnail that are looked at
# Bytes per value of each TIFF type; 13 and 16 to 18 are later additions (IFD; BigTIFF's LONG8, SLONG8, IFD8).
_UNIT: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_GPS: Final = 34853
# Directories that an entry points to: Exif, GPS, interoperability, sub-images.
_POINTERS: Final[dict[int, _Role]] = {34665: "exif", _GPS: "gps", 40965: "exif", 330: "image"}
_XMP, _IPTC, _PHOTOSHOP = 700, 33723, 34377
_MAKER_NOTE: Final = 37500
_GEOTIFF: Final = (33550, 33922, 34264, 34735, 34736, 34737)  # OGC GeoTIFF 1.1: where a map or aerial picture lies
_THUMBNAIL: Final = (513, 514)  # offset, length
_PIXELS: Final = ((273, 279), (324, 325), _THUMBNAIL)  # offsets, lengths: strips, tiles, thumbnail
_READ: Final = frozenset({_XMP, _IPTC, _PHOTOSHOP, *sum(_PIXELS, ()), *_POINTERS})  # whose values are looked into
# Latitude and longitude, of the camera and of what it shows, and the area's name. A GPS directory that says only its
# version or the time, as cameras without reception write it, tells no place.
TELLING: Final = frozenset({2, 4, 20, 22, 28})

# Repetitions are bounded: without it, a file of spaces would keep the search busy for days.
_XMP_PLACE: Final = re.compile(
    rb"gps(?:latitude|longitude|position|coordinates|dest|areainformation|altitude)"
    rb"|[:<\s\"'](?:latitude|longitude|gps\w{0,20}(?:latitude|longitude)|geotag|lat|long|lon)\s{0,9}[=>/]"
    rb"|[:<\s\"'](?:city|state|country|countrycode|countryname|provincestate|sublocation|worldregion"
    rb"|location(?:created|shown|name|id)?|shotlocation)\s{0,9}(?:=\s{0,9}(?:\"[^\"]|'[^'])|>\s{0,99}[^<\s]|>\s{0,99}<[^/]|\s[\w:]{1,40}=)",
    re.IGNORECASE,
)
_NAMED: Final = re.compile(rb"gps[ _:-]?(?:latitude|longitude|position|coordinates)", re.IGNORECASE)
_VIDEO_PLACE: Final = re.compile(rb"\xa9xyz|com\.apple\.quicktime\.location")
# IPTC-IIM 4.2, record 2: content location code and name, city, sublocation, province, country code and name.
_IPTC_PLACES: Final = frozenset({26, 27, 90, 92, 95, 100, 101})
_MOST_GUESSES: Final = 64
_EMPTY_XMP: Final = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
_EXIF: Final = b"Exif\x00\x00"


def xmp_tells(packet: bytes) -> bool:
    """Whether an XMP packet (UTF-8, -16 or -32) holds coordinates, or a city, state, country or location."""
    return _XMP_PLACE.search(packet.replace(b"\0", b"")) is not None


def named(block: bytes) -> bool:
    """Whether a block of a kind that vez does not know (JSON, CBOR, a text's key) speaks of GPS coordinates."""
    return _NAMED.search(block.replace(b"\0", b"")) is not None


def anywhere(data: bytes) -> bool:
    """Whether places are told somewhere in bytes of unknown structure: what follows a picture, a film inside it."""
    starts = [match.end() for match in re.finditer(rb"Exif\x00\x00(?=II|MM)", data)]
    if len(starts) > _MOST_GUESSES:
        return True  # no camera does this; that it cannot be told must not read as "no"
    if named(data) or _VIDEO_PLACE.search(data):
        return True
    packets = slice(max(0, data.find(b"<x:xmpmeta")), data.rfind(b"</x:xmpmeta>") + 1)
    if xmp_tells(data[packets]):
        return True
    return any(_inner_tells(data[start : start + 65533]) for start in starts)


def iptc_tells(data: bytes) -> bool:
    """Whether IPTC-IIM data sets name a place."""
    at = 0
    while (at := data.find(b"\x1c", at)) >= 0 and at + 5 <= len(data):
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at + 1] == 2 and data[at + 2] in _IPTC_PLACES and data[at + 5 : at + 5 + length].strip(b" \0"):
            return True
        at += 5 + (length if length < 0x8000 else 0)
    return False


def photoshop_tells(data: bytes) -> bool:
    """Whether Photoshop's image resources ("8BIM…") hold IPTC, EXIF or XMP that tells a place."""
    tells = {0x0404: iptc_tells, 0x0422: _inner_tells, 0x0423: _inner_tells, 0x0424: xmp_tells}
    at = 0
    while (at := data.find(b"8BIM", at)) >= 0 and at + 12 <= len(data):
        kind = int.from_bytes(data[at + 4 : at + 6], "big")
        start = at + 6 + (data[at + 6] + 2) // 2 * 2  # a Pascal string, padded to even length
        length = int.from_bytes(data[start : start + 4], "big")
        if kind in tells and tells[kind](data[start + 4 : start + 4 + length]):
            return True
        at = start + 4 + length
    return False


def empty_xmp(length: int) -> bytes:
    """An XMP packet of so many bytes that says nothing."""
    return (_EMPTY_XMP if length >= len(_EMPTY_XMP) else b"").ljust(length)


def exif_block(block: bytes) -> bytes:
    """`exif_without` for a block with or without the six bytes that JPEG puts before it."""
    head = _EXIF if block.startswith(_EXIF) else b""
    return head + exif_without(block[len(head) :])


def exif_without(blob: bytes, *, nested: bool = True) -> bytes:
    """An EXIF block, or a whole TIFF file, without places; as long as it was, and unchanged where it tells none.

    The GPS directory, GeoTIFF's tags, and XMP or IPTC that tell a place are overwritten with zeros and their entries
    taken out; so is the maker's note, whose content only the maker knows. All else keeps its bytes and offsets.
    ``nested``: look into thumbnails and Photoshop's resources, which may hold EXIF themselves.
    Raises DataError where that would damage something else, as in a file made to deceive.
    """
    layout = _layout(blob)
    if layout is None:
        return blob
    walked = _walk(blob, layout)
    gps, others = [d for d in walked if d.gps], [d for d in walked if not d.gps]
    going = {entry for d in others for entry in _telling(blob, layout, d, nested=nested)}
    told = any(entry.tag in TELLING and entry.span[0] < entry.span[1] for d in gps for entry in d.entries)
    if not going and not told:
        return blob
    going |= {entry for d in others for entry in d.entries if entry.tag in (_GPS, _MAKER_NOTE)}
    wiped = [d.span for d in gps] + [entry.span for d in gps for entry in d.entries if not entry.inline]
    changed = [d for d in others if not going.isdisjoint(d.entries)]
    kept = [d.span for d in others if d not in changed]
    for d in others:
        for entry in d.entries:
            (wiped if entry in going else kept).extend([] if entry.inline else [entry.span])
        for pair in _PIXELS:
            spans = _pixels(blob, layout, d, pair)
            (wiped if any(entry in going for entry in d.entries if entry.tag in pair) else kept).extend(spans)
    rewritten = sorted(d.span for d in changed)
    crossing = any(one[1] > two[0] for one, two in pairwise(rewritten))
    if crossing or overlap(wiped, kept + rewritten) or overlap(rewritten, kept):
        raise DataError("what its metadata tells of the place lies across other parts of the file")
    result = bytearray(blob)
    for start, end in wiped:
        result[start:end] = bytes(end - start)
    for d in changed:
        result[slice(*d.span)] = _rewritten(blob, layout, d, going)
    return bytes(result)


def _inner_tells(blob: bytes) -> bool:
    """Whether EXIF inside another block tells a place; also where it is so entangled that it cannot be told."""
    try:
        return exif_without(blob, nested=False) != blob
    except DataError:
        return True


def overlap(some: Iterable[Span], others: Iterable[Span]) -> bool:
    """Whether a span of the first kind shares a byte with one of the second."""
    spans = sorted([(start, end, 0) for start, end in some if end > start] + [(s, e, 1) for s, e in others if e > s])
    reach = [0, 0]  # how far each kind covers so far
    for start, end, kind in spans:
        if start < reach[1 - kind]:
            return True
        reach[kind] = max(reach[kind], end)
    return False


@dataclass(frozen=True)
class _Layout:
    """How numbers are stored: byte order, and BigTIFF's wider fields."""

    order: Literal["little", "big"]
    wide: bool

    def number(self, blob: bytes, at: int, size: int) -> int:
        return int.from_bytes(blob[at : at + size], self.order)


@dataclass(frozen=True)
class _Entry:
    tag: int
    unit: int  # bytes per value; 0: of an unknown type
    start: int  # of the entry itself
    span: Span  # of its value, cut to what there is
    inline: bool


@dataclass(frozen=True)
class _Directory:
    span: Span
    entries: tuple[_Entry, ...]
    role: _Role
    following: int  # offset of the next one

    @property
    def gps(self) -> bool:
        return self.role == "gps"


def _layout(blob: bytes) -> _Layout | None:
    if blob[:2] not in (b"II", b"MM"):
        return None
    # Readers take 42 in the wrong order for 42; so must whoever wants to find what they find.
    return _Layout("little" if blob[:2] == b"II" else "big", b"\x2b" in blob[2:4])


def _walk(blob: bytes, layout: _Layout) -> list[_Directory]:
    """Every directory that a reader could come to. Raises DataError where there are too many."""
    waiting: list[tuple[int, _Role]] = [(layout.number(blob, *((8, 8) if layout.wide else (4, 4))), "image")]
    seen: set[tuple[int, _Role]] = set()
    found: list[_Directory] = []
    entries = values = 0
    while waiting:
        at, role = waiting.pop()
        if (at, role) in seen or not 0 < at < len(blob):
            continue
        seen.add((at, role))
        directory = _directory(blob, layout, at, role)
        entries += len(directory.entries)
        values += sum(entry.span[1] - entry.span[0] for entry in directory.entries if entry.tag in _READ)
        if len(seen) > _MOST_DIRECTORIES or entries > _MOST_ENTRIES or values > 4 * len(blob):
            raise DataError("its metadata has more entries than any camera writes")
        found.append(directory)
        if role == "image":
            waiting.append((directory.following, role))
        for entry in directory.entries:
            if entry.tag in _POINTERS:
                waiting += [
                    (to, _POINTERS[entry.tag]) for to in islice(_values(blob, layout, entry), _MOST_DIRECTORIES)
                ]
    return found


def _directory(blob: bytes, layout: _Layout, at: int, role: _Role) -> _Directory:
    head, size, field = (8, 20, 8) if layout.wide else (2, 12, 4)
    count = min(layout.number(blob, at, head), (len(blob) - at) // size, _MOST_ENTRIES)
    last = at + head + count * size
    entries = []
    for start in range(at + head, last, size):
        unit = _UNIT.get(layout.number(blob, start + 2, 2), 0)
        value, length = start + 4 + field, unit * layout.number(blob, start + 4, field)
        inline = length <= field
        if not inline:
            value = layout.number(blob, value, field)
        span = (min(value, len(blob)), min(value + length, len(blob)))
        entries.append(_Entry(layout.number(blob, start, 2), unit, start, span, inline))
    following = layout.number(blob, last, field) if last + field <= len(blob) else 0
    return _Directory((at, min(last + field, len(blob))), tuple(entries), role, following)


def _values(blob: bytes, layout: _Layout, entry: _Entry) -> Iterator[int]:
    """Whole numbers of an entry: the offsets or lengths it lists."""
    if entry.unit in (2, 4, 8):
        for at in range(*entry.span, entry.unit):
            yield layout.number(blob, at, entry.unit)


def _telling(blob: bytes, layout: _Layout, directory: _Directory, *, nested: bool) -> list[_Entry]:
    """The entries of an ordinary directory that tell a place by themselves."""
    tells = {_XMP: xmp_tells, _IPTC: iptc_tells} | ({_PHOTOSHOP: photoshop_tells} if nested else {})
    thumbnails = _pixels(blob, layout, directory, _THUMBNAIL) if nested else []
    thumbnail = any(anywhere(blob[at : min(end, at + _MOST_THUMBNAIL)]) for at, end in thumbnails[:1])
    return [
        entry
        for entry in directory.entries
        if entry.tag in _GEOTIFF
        or (entry.tag in _THUMBNAIL and thumbnail)
        or (entry.tag in tells and tells[entry.tag](blob[slice(*entry.span)]))
    ]


def _pixels(blob: bytes, layout: _Layout, directory: _Directory, pair: tuple[int, int]) -> list[Span]:
    """Where the strips, the tiles or the thumbnail of a directory lie: ``pair`` are the tags of offsets and lengths."""
    offsets, lengths = (
        [number for entry in directory.entries if entry.tag == tag for number in _values(blob, layout, entry)]
        for tag in pair
    )
    # where a length is missing, readers guess: up to the end
    return [
        (at, min(at + length, len(blob)))
        for at, length in zip_longest(offsets, lengths[: len(offsets)], fillvalue=len(blob))
        if at < len(blob)
    ]


def _rewritten(blob: bytes, layout: _Layout, directory: _Directory, going: set[_Entry]) -> bytes:
    """A directory without some of its entries, filled up with zeros to the length it had."""
    start, end = directory.span
    head, size = (8, 20) if layout.wide else (2, 12)
    staying = [entry for entry in directory.entries if entry not in going]
    last = start + head + len(directory.entries) * size  # the offset of the next directory
    parts = [len(staying).to_bytes(head, layout.order), *(blob[e.start : e.start + size] for e in staying)]
    return b"".join([*parts, blob[last:end]]).ljust(end - start, b"\0")
