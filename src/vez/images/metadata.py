"""Files without the places they were taken at: JPEG, PNG, WebP, AVIF, HEIC, TIFF, GIF. Their pixels are not touched.

Every change keeps the length of what it changes (PNG's chunks apart, which nothing points into), so that no offset in
the file becomes wrong: a block is overwritten where it lies. The result is read twice before it is believed: by the
code here, and by Pillow.
"""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import Final

from PIL import Image

from vez.errors import DataError
from vez.images import bmff
from vez.images.places import (
    TELLING,
    Span,
    anywhere,
    empty_xmp,
    exif_block,
    exif_without,
    iptc_tells,
    named,
    photoshop_tells,
    xmp_tells,
)

_WAY_OUT: Final = "save the picture again without metadata"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
# JPEG's markers that stand for something: not a stuffed zero, a fill byte, a restart or the start (ITU-T T.81, B.1.1).
_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_XMP_HEADS: Final = {b"http://ns.adobe.com/xap/1.0/\0": 29, b"http://ns.adobe.com/xmp/extension/\0": 75}
_MOST_SEGMENTS: Final = 20_000
_MOST_TEXTS: Final = 200
_MOST_TEXT: Final = (
    1_000_000  # bytes of a PNG's text once decompressed; a longer one, which Pillow refuses, goes unseen
)
_PNG_KNOWN: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"fdAT", b"fcTL", b"acTL"})
# What is read, by Pillow's names; a list, so that a file cannot reach a rarely tested decoder by its content.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
# What Pillow raises on damaged files.
BROKEN: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    AttributeError,
    RuntimeError,
    AssertionError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def has_places(data: bytes) -> bool:
    """Whether a file's metadata tells where it was taken: EXIF, XMP, IPTC, GeoTIFF, or a film or picture behind it.

    Coordinates and names of places count; a GPS block that holds only the time does not. True as well where the
    metadata is too entangled to tell; False for what is no picture.
    """
    try:
        return _without(data) != data
    except DataError:
        return True


def strip_places(data: bytes) -> bytes:
    """The file without the places it tells; pixels, colour profile and orientation as they were.

    A file that tells none is returned as it is. Taken out are the GPS directory and the camera maker's note beside it,
    XMP and IPTC that tell a place (whole, with all else they say), and what is appended behind the picture if that
    tells a place. Raises DataError where it cannot be done without harm or cannot be verified.
    """
    result = _without(data)
    if result == data:
        return data
    before, after = _as_pillow_reads(data), _as_pillow_reads(result)
    if _without(result) != result or (after is not None and after[0]):
        raise DataError(f"the place that its metadata tells cannot be taken out; {_WAY_OUT}")
    if before is not None and (after is None or before[1:] != after[1:]):
        raise DataError(f"the place that its metadata tells cannot be separated from the picture; {_WAY_OUT}")
    return result


def _without(data: bytes) -> bytes:
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(_PNG):
        return _png(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[4:8] == b"ftyp":
        return bmff.without_places(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return exif_without(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif(data)
    return data


def _as_pillow_reads(data: bytes) -> tuple[bool, int, tuple[int, int], bytes] | None:
    """(Tells a place, orientation, size, colour profile), or None where Pillow cannot open the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                exif = image.getexif()
                profile, xmp = image.info.get("icc_profile"), image.info.get("xmp")
                tells = not TELLING.isdisjoint(exif.get_ifd(0x8825)) or (isinstance(xmp, bytes) and xmp_tells(xmp))
                return tells, exif.get(0x0112, 1), image.size, profile if isinstance(profile, bytes) else b""
        except BROKEN:
            return None


def _jpeg(data: bytes) -> bytes:
    """ITU-T T.81; EXIF and XMP in APP1, IPTC in APP13, pictures and films of the same moment after the end."""
    segments, end = _segments(data)
    result = bytearray(data)
    for group in _exif_groups(data, segments):
        _scatter(result, group, exif_without(b"".join(data[slice(*span)] for span in group)))
    _wipe_xmp(data, segments, result)
    going = [
        (start, stop)
        for marker, start, stop in segments
        if marker in (*range(0xE2, 0xF0), 0xFE) and named(data[start:stop])
    ]
    resources = [(a, b) for marker, a, b in segments if marker == 0xED and data[a:b].startswith(b"Photoshop 3.0\0")]
    if photoshop_tells(b"".join(data[start + 14 : stop] for start, stop in resources)):
        going += resources
    if anywhere(data[end:]):
        # the index of what follows
        going += [(a, b) for marker, a, b in segments if marker == 0xE2 and data[a:b].startswith(b"MPF\0")]
        del result[end:]
    for start, stop in going:
        result[start:stop] = bytes(stop - start)
    return bytes(result)


def _wipe_xmp(data: bytes, segments: list[tuple[int, int, int]], result: bytearray) -> None:
    """XMP, and the extended XMP of up to 4 GB whose parts carry their place in it (XMP specification, part 3)."""
    packet, extended = (
        sorted(
            (data[start + size - 4 : start + size] if size > 29 else b"", start + size, stop)
            for marker, start, stop in segments
            if marker == 0xE1 and data[start:stop].startswith(head)
        )
        for head, size in _XMP_HEADS.items()
    )
    if xmp_tells(b"".join(data[start:stop] for _, start, stop in packet + extended)):
        for _, start, stop in packet:
            result[start:stop] = empty_xmp(stop - start)
        for _, start, stop in extended:
            result[start:stop] = b"".ljust(max(0, stop - start))


def _segments(data: bytes) -> tuple[list[tuple[int, int, int]], int]:
    """(Marker, start and end of what it holds) of each segment, and where the picture ends."""
    segments: list[tuple[int, int, int]] = []
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, start = found[0][1], found.end() + 2
        if marker == 0xD9:
            return segments, found.end()
        at = min(max(start, found.end() + int.from_bytes(data[start - 2 : start], "big")), len(data))
        segments.append((marker, min(start, at), at))
        if len(segments) > _MOST_SEGMENTS:
            raise DataError("its metadata has more parts than any camera writes")
    return segments, len(data)


def _exif_groups(data: bytes, segments: list[tuple[int, int, int]]) -> list[list[Span]]:
    """Where the parts of each EXIF block lie: one longer than a segment goes on in the next."""
    groups: list[list[Span]] = []
    for marker, start, end in segments:
        if marker == 0xE1 and data[start : start + 4] == b"Exif":
            if not groups or data[start + 6 : start + 10] in (b"II*\0", b"MM\0*"):
                groups.append([])
            groups[-1].append((min(start + 6, end), end))
    return groups


def _scatter(result: bytearray, spans: list[Span], block: bytes) -> None:
    at = 0
    for start, end in spans:
        result[start:end] = block[at : at + end - start]
        at += end - start


def _png(data: bytes) -> bytes:
    """PNG, 3rd edition: eXIf; XMP in iTXt; ImageMagick's "Raw profile type" texts; what follows IEND."""
    parts = [_PNG]
    at = len(_PNG)
    texts = 0
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        texts += kind in (b"tEXt", b"zTXt", b"iTXt")
        if texts > _MOST_TEXTS:
            raise DataError("its metadata has more parts than any camera writes")
        body = data[at + 8 : end - 4]
        clean = _chunk(kind, body)
        if clean == body:
            parts.append(data[at:end])
        elif clean is not None:
            parts.append(struct.pack(">I", len(clean)) + kind + clean + struct.pack(">I", zlib.crc32(kind + clean)))
        at = end
        if kind == b"IEND":
            break
    tail = data[at:]
    if tail and not anywhere(tail):
        parts.append(tail)
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes | None:
    """A chunk's content without places; None: the whole chunk goes."""
    if kind == b"eXIf":
        return exif_block(body)
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        return _text(kind, body)
    return None if kind not in _PNG_KNOWN and named(body) else body


def _text(kind: bytes, body: bytes) -> bytes | None:
    """A text chunk without places: its key says what its text is."""
    key, _, rest = body.partition(b"\0")
    if named(key) or key.lower() == b"location":
        return None
    profile = key.lower().removeprefix(b"raw profile type ")
    if key != b"XML:com.adobe.xmp" and profile == key.lower():
        return body
    text = rest
    if kind == b"zTXt" or (kind == b"iTXt" and rest[:1] == b"\1"):
        packed = rest[1:] if kind == b"zTXt" else b"".join(rest[2:].split(b"\0", 2)[2:])
        try:
            unpacking = zlib.decompressobj()
            text = unpacking.decompress(packed, _MOST_TEXT)
            if unpacking.unconsumed_tail:
                return None
        except zlib.error:
            return None
    if key == b"XML:com.adobe.xmp":
        return None if xmp_tells(text) else body
    return _raw_profile(key, profile, text, body)


def _raw_profile(key: bytes, profile: bytes, text: bytes, body: bytes) -> bytes | None:
    """ImageMagick's form: a name, the length, then the block in hexadecimal digits, each on lines of their own."""
    try:
        name, length, digits = text.strip().split(None, 2) if profile else (b"", b"", b"")
        block = bytes.fromhex(digits.decode("ascii", "replace"))
    except ValueError:
        return None  # it cannot be told what it holds, and no reader can use it
    if xmp_tells(block) or photoshop_tells(block) or iptc_tells(block):
        return None
    clean = exif_block(block)
    if clean == block:
        return body
    return key + b"\0\0" + zlib.compress(b"\n%s\n%8d\n%s\n" % (name, int(length), clean.hex().encode()))


def _webp(data: bytes) -> bytes:
    """RFC 9649: EXIF and XMP chunks."""
    end = min(8 + int.from_bytes(data[4:8], "little"), len(data))
    result = bytearray(data)
    for kind, start, stop in _riff(data, end):
        body = data[start:stop]
        if kind == b"EXIF":
            result[start:stop] = exif_block(body)
        elif kind == b"XMP ":
            result[start:stop] = empty_xmp(len(body)) if xmp_tells(body) else body
        elif kind not in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP") and named(body):
            result[start:stop] = bytes(len(body))
    if anywhere(data[end:]):
        del result[end:]
    return bytes(result)


def _riff(data: bytes, end: int) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    while at + 8 <= end:
        stop = min(at + 8 + int.from_bytes(data[at + 4 : at + 8], "little"), end)
        yield data[at : at + 4], at + 8, stop
        at = stop + (stop - at) % 2


def _gif(data: bytes) -> bytes:
    """XMP in an application extension (XMP specification, part 3): whatever stands in it, readers get past it."""
    result = bytearray(data)
    at = 0
    while (at := data.find(b"\x21\xff\x0bXMP DataXMP", at)) >= 0:
        at += 14
        end = data.find(b"\x01\xff\xfe\xfd", at)
        end = end if end >= 0 else len(data)
        if xmp_tells(data[at:end]):
            result[at:end] = empty_xmp(end - at)
    return bytes(result)
