"""Damaged files of every format: what comes out is a picture or a DataError. Seeded, so that a failure comes again."""

import io
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from vez.errors import DataError
from vez.images.decode import read_picture
from vez.images.metadata import has_places, strip_places

HEIF = pytest.param("HEIF", marks=pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs vez[heic]"))
KINDS = ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", HEIF]
MANY = 2500
SECONDS = 5.0  # for one mutant; the usual one takes milliseconds
MEGABYTES = 400  # that the process may grow by over all mutants of a format
MOST_PIXELS = 2_000_000
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:GPSLatitude="44,48.5N"/></rdf:RDF></x:xmpmeta>'
)
LIES = (0, 1, 2, 3, 7, 8, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.from_pillow(image).save(file, quality=60, **options)
    else:
        image.save(file, kind, **options)
    return file.getvalue()


@cache
def seeds(kind: str) -> tuple[bytes, ...]:
    """Small sound files that use much of what the format has."""
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((48, 36))
    seen = image.convert("RGBA")
    seen.putalpha(Image.linear_gradient("L").resize(image.size))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x8825] = {0: b"\2\3\0\0", 1: "N", 2: (44.0, 48.0, 30.5), 3: "E", 4: (20.0, 27.0, 10.0)}
    exif[0x8769] = {0x927C: b"the maker's note"}
    told: dict[str, Any] = {"exif": exif.tobytes()}
    profile: dict[str, Any] = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}

    def frames() -> dict[str, Any]:  # fresh ones: saving leaves the encoder's settings on a picture
        return {"save_all": True, "append_images": [image.rotate(90), image.rotate(180)]}

    palette = image.quantize(16)
    wide = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    variants: dict[str, list[bytes]] = {
        "JPEG": [
            saved(image, "JPEG", **told, **profile),
            saved(image, "JPEG", progressive=True, xmp=XMP),
            saved(image.convert("CMYK"), "JPEG"),
            saved(image, "MPO", **frames()) + saved(image, "JPEG", **told),
        ],
        "PNG": [
            saved(image, "PNG", **told, **profile),
            saved(seen, "PNG"),
            saved(palette, "PNG", transparency=3),
            saved(wide, "PNG"),
            saved(image, "PNG", **frames()),
        ],
        "WEBP": [
            saved(image, "WEBP", **told, **profile, xmp=XMP),
            saved(seen, "WEBP", lossless=True),
            saved(image, "WEBP", **frames()),
        ],
        "AVIF": [
            saved(image, "AVIF", **told, **profile, xmp=XMP),
            saved(seen, "AVIF"),
            saved(image, "AVIF", **frames()),
        ],
        "GIF": [saved(image, "GIF", **frames()), saved(palette, "GIF", transparency=3, interlace=1)],
        "BMP": [saved(image, "BMP"), saved(palette, "BMP"), saved(image.convert("1"), "BMP"), saved(seen, "BMP")],
        "TIFF": [
            saved(image, "TIFF", **told, **profile),
            saved(image, "TIFF", compression="tiff_lzw", **frames()),
            saved(image, "TIFF", compression="jpeg"),
            saved(image.convert("1"), "TIFF", compression="group4"),
            saved(wide, "TIFF", compression="tiff_adobe_deflate"),
            saved(image, "TIFF", big_tiff=True),
        ],
    }
    return tuple(variants[kind] if kind != "HEIF" else [saved(image, kind, **told, xmp=XMP), saved(seen, kind)])


def mutants(kind: str, count: int) -> Iterator[bytes]:
    dice = random.Random(f"vez {kind}")
    for _ in range(count):
        data = bytearray(dice.choice(seeds(kind)))
        for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
            data = damaged(data, dice, bytearray(dice.choice(seeds(kind))))
        yield checksummed(data) if kind == "PNG" and dice.random() < 0.7 else bytes(data)


def damaged(data: bytearray, dice: random.Random, other: bytearray) -> bytearray:
    """One thing wrong: a flipped bit, an end, a lie about a length, a piece that is gone, doubled or from elsewhere."""
    # the first bytes decide most; the rest is mostly pixels
    at = dice.randrange(min(len(data), dice.choice((64, 256, len(data)))) or 1)
    size = dice.choice((1, 2, 4, 8, 40, 300))
    match dice.randrange(8):
        case 0 | 1 if data:
            data[at % len(data)] ^= 1 << dice.randrange(8)
        case 2 if data:
            data[at % len(data)] = dice.randrange(256)
        case 3:
            del data[dice.randrange(len(data) + 1) :]
        case 4:
            layout = dice.choice((">H", "<H", ">I", "<I"))
            lie = dice.choice(LIES) & (0xFFFF if layout[1] == "H" else 0xFFFFFFFF)
            data[at : at + struct.calcsize(layout)] = struct.pack(layout, lie)
        case 5:
            del data[at : at + size]
        case 6:
            data[at:at] = data[at : at + size]
        case _:
            start = dice.randrange(len(other))
            data[at : at + dice.choice((0, size))] = other[start : start + size]
    return data


def checksummed(data: bytearray) -> bytes:
    """A PNG whose chunks have the checksums of what they hold, so that the damage is met behind that gate."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


def outcome(data: bytes) -> str:
    """What becomes of a damaged file; fails where it is anything but a picture or a DataError."""
    try:
        decoded = read_picture(data, max_pixels=MOST_PIXELS)
    except DataError as error:
        assert str(error)
        decoded = None
    if decoded is not None:
        assert decoded.image.mode == "RGB" and min(decoded.image.size) > 0 and decoded.image.size == decoded.size
        assert decoded.alpha is None or (decoded.alpha.mode == "L" and decoded.alpha.size == decoded.size)
        decoded.image.tobytes()
    try:
        clean = strip_places(data)
    except DataError as error:
        assert str(error)
        return "kept its place" if decoded is not None else "refused"
    assert not has_places(clean)
    if clean != data and decoded is not None:
        again = read_picture(clean, max_pixels=MOST_PIXELS)
        assert not again.places and again.image.size == decoded.image.size
        assert again.image.tobytes() == decoded.image.tobytes()
    return "read" if decoded is not None else "refused"


def run(kind: str, count: int) -> dict[str, int]:
    outcomes = {"read": 0, "refused": 0, "kept its place": 0}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest = 0.0
    for number, data in enumerate(mutants(kind, count)):
        start = time.process_time()
        try:
            outcomes[outcome(data)] += 1
        except Exception as error:
            raise AssertionError(f"mutant {number} of {kind}") from error
        slowest = max(slowest, time.process_time() - start)
        assert slowest < SECONDS, f"mutant {number} of {kind} took {slowest:.1f} s"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024  # Linux counts kilobytes
    assert grown < MEGABYTES, f"{kind}: {grown:.0f} MB"
    print(f"{kind}: {count} mutants, {outcomes}, slowest {slowest:.2f} s, {grown:.0f} MB more")
    return outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_the_seeds_are_sound(kind: str) -> None:
    assert [outcome(seed) for seed in seeds(kind)] == ["read"] * len(seeds(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = run(kind, 60)
    assert outcomes["read"] and outcomes["refused"]
    noise = capfd.readouterr().err
    assert not noise or kind == "TIFF"  # libtiff speaks for itself, past Python


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(kind: str) -> None:
    """In a process of its own: others' tests may have it keep memory that is freed (`vez.base.frugal`)."""
    asked = f"import test_fuzz; test_fuzz.run({kind!r}, {MANY})"
    subprocess.run([sys.executable, "-c", asked], cwd=Path(__file__).parent, check=True)


def test_a_damaged_file_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "damaged"
    for data in mutants("JPEG", 20):
        file.write_bytes(data)
        try:
            read_picture(file, max_pixels=MOST_PIXELS)
        except DataError as error:
            assert str(error)
        assert file.read_bytes() == data and list(tmp_path.iterdir()) == [file]
