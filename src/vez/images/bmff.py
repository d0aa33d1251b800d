"""AVIF and HEIC without places: ISO base media files (ISO 14496-12) whose metadata are items (HEIF, ISO 23008-12)."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from vez.errors import DataError
from vez.images.places import Span, anywhere, empty_xmp, exif_without, overlap, xmp_tells

_MOST_EXTENTS: Final = 100_000
_MOST_BOXES: Final = 10_000
_MOST_PACKET: Final = 16_000_000  # bytes of a packed XMP item
_PLAIN: Final = (
    b"ftyp",
    b"mdat",
    b"meta",
    b"idat",
)  # boxes that hold no metadata of their own, or are read item by item
_METADATA: Final = (b"Exif", b"mime application/rdf+xml")


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class _Item:
    kind: bytes
    """The four letters of its type; for "mime", the content type follows."""
    packed: bool
    spans: tuple[Span, ...]


def without_places(data: bytes) -> bytes:
    """The file without places, as long as it was; unchanged where it tells none.

    Raises DataError where a place lies across other parts of the file, or the file's tables are beyond belief.
    """
    result = bytearray(data)
    wiped: list[Span] = []
    kept: list[Span] = []
    for box in _boxes(data, 0, len(data)):
        if box.kind == b"meta":
            items, header = _items(data, box)
            kept += header
            for item in items:
                changed = _item_without(data, item, result)
                (wiped if changed else kept).extend(item.spans if changed or item.kind not in _METADATA else ())
        elif box.kind == b"moov" or (box.kind not in _PLAIN and _tells(data[box.body : box.end])):
            for part in _film(data, box) if box.kind == b"moov" else [box]:
                # made one that readers pass over
                result[part.start + 4 : part.start + 8] = b"free"
                result[part.body : part.end] = bytes(part.end - part.body)
                wiped.append((part.start, part.end))
    if overlap(wiped, kept):
        raise DataError("what its metadata tells of the place lies across other parts of the file")
    return bytes(result)


def _tells(body: bytes) -> bool:
    return anywhere(body) or xmp_tells(body)


def _film(data: bytes, box: _Box) -> Iterator[_Box]:
    """The user data and metadata in an image sequence's header that tell a place."""
    for child in _boxes(data, box.body, box.end):
        if child.kind == b"trak" and box.kind == b"moov":
            yield from _film(data, child)
        elif child.kind in (b"udta", b"meta", b"uuid") and _tells(data[child.body : child.end]):
            yield child


def _item_without(data: bytes, item: _Item, result: bytearray) -> bool:
    """Overwrite a metadata item that tells a place; whether it did."""
    if item.kind not in _METADATA:
        return False
    block = b"".join(data[slice(*span)] for span in item.spans)
    clean = _exif_item(block) if item.kind == b"Exif" else _xmp_item(block, packed=item.packed)
    at = 0
    for start, end in item.spans if clean != block else ():
        result[start:end] = clean[at : at + end - start]
        at += end - start
    return clean != block


def _exif_item(block: bytes) -> bytes:
    """Four bytes say where in the rest the TIFF header stands; some writers mean it otherwise, so all are tried."""
    for start in {4, 10, 4 + int.from_bytes(block[:4], "big")}:
        block = block[:start] + exif_without(block[start:])
    return block


def _xmp_item(block: bytes, *, packed: bool) -> bytes:
    text = block
    if packed:
        try:
            unpacking = zlib.decompressobj(wbits=47)
            text = unpacking.decompress(block, _MOST_PACKET)
        except zlib.error:
            return bytes(len(block))  # it cannot be told what it says
        if unpacking.unconsumed_tail:
            return bytes(len(block))
    if not xmp_tells(text):
        return block
    return bytes(len(block)) if packed else empty_xmp(len(block))


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        size, body = int.from_bytes(data[start : start + 4], "big"), start + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8], "big"), body + 8
        stop = start + size if size else end
        if stop < body:
            return
        yield _Box(data[start + 4 : start + 8], start, min(body, end), min(stop, end))
        start = stop
    raise DataError("its metadata has more parts than any camera writes")


def _items(data: bytes, meta: _Box) -> tuple[list[_Item], list[Span]]:
    """The items of a meta box, and the parts of the box that are tables."""
    parts = {box.kind: box for box in _boxes(data, meta.body + 4, meta.end)}
    idat = parts.get(b"idat")
    tables = [(meta.start, idat.body), (idat.end, meta.end)] if idat else [(meta.start, meta.end)]
    if b"iinf" not in parts or b"iloc" not in parts:
        return [], tables
    kinds = _kinds(data, parts[b"iinf"])
    items = []
    for number, method, spans in _locations(data, parts[b"iloc"]):
        kind, packed = kinds.get(number, (b"", False))
        if kind in _METADATA and method > 1:
            raise DataError("its metadata is stored in a way that vez does not read")
        if method == 1 and idat is not None:
            spans = [(min(a + idat.body, idat.end), min(b + idat.body, idat.end)) for a, b in spans]
        items.append(_Item(kind, packed, tuple((min(a, len(data)), min(b, len(data))) for a, b in spans)))
    return items, tables


def _kinds(data: bytes, iinf: _Box) -> dict[int, tuple[bytes, bool]]:
    """Item id → (type, whether its content is packed)."""
    wide = data[iinf.body : iinf.body + 1] != b"\0"
    kinds = {}
    for box in _boxes(data, iinf.body + (8 if wide else 6), iinf.end):
        version = data[box.body : box.body + 1]
        if box.kind != b"infe" or version < b"\2":
            continue
        size = 2 if version == b"\2" else 4
        number = int.from_bytes(data[box.body + 4 : box.body + 4 + size], "big")
        at = box.body + 4 + size + 2
        kind = data[at : at + 4]
        if kind == b"mime":
            _, content, encoding, *_ = [*data[at + 4 : box.end].split(b"\0"), b"", b""]
            kinds[number] = (b"mime " + content, bool(encoding))
        else:
            kinds[number] = (kind, False)
    return kinds


def _locations(data: bytes, iloc: _Box) -> Iterator[tuple[int, int, list[Span]]]:
    """(Item id, construction method, extents) of each item; 0: offsets in the file, 1: in the idat box."""
    at = iloc.body
    version = data[at : at + 1]
    sizes = int.from_bytes(data[at + 4 : at + 6], "big")
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    index_size = index_size if version > b"\0" else 0
    at += 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "big")

    extents = 0
    for _ in range(number(2 if version < b"\2" else 4)):
        if at >= iloc.end:
            return
        item = number(2 if version < b"\2" else 4)
        method = number(2) & 15 if version > b"\0" else 0
        number(2)  # which file; others than this one are not read
        base = number(base_size)
        spans = []
        for _ in range(number(2)):
            extents += 1
            if extents > _MOST_EXTENTS:
                raise DataError("its metadata has more parts than any camera writes")
            number(index_size)
            start = base + number(offset_size)
            length = number(length_size)
            spans.append((start, start + length if length else len(data)))
        yield item, method, spans
