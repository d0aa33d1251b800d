import io
import struct
import subprocess
import sys
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from vez.errors import DataError
from vez.images.decode import decode, read_picture

HEIF = pytest.param("HEIF", marks=pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs vez[heic]"))
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# The tag's eight values and where a picture whose stored top-left corner is red shows it: EXIF 2.32, 4.6.4.A.
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.from_pillow(image).save(file, **{"quality": 90, **options})
    else:
        image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 24, height: int = 16) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", HEIF])
def test_exif_turns_it_upright(orientation: int, kind: str) -> None:
    stored = Image.new("RGB", (128, 64), "white")
    stored.paste(RED, (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = read_picture(saved(stored, kind, exif=exif.tobytes() if kind == "HEIF" else exif))
    upright = decoded.image
    assert upright.size == decoded.size == ((128, 64) if orientation < 5 else (64, 128))
    row, column = CORNERS[orientation]
    assert np.abs(np.asarray(upright, int)[row, column] - RED).max() < 30
    assert not upright.getexif() and not upright.info


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"Exif\x00\x00" + b"\xff" * 64]
)
def test_broken_exif_leaves_the_picture_as_it_is(exif: bytes) -> None:
    assert decode(saved(picture(), "JPEG", exif=exif)).size == (24, 16)


def test_alpha_lies_over_white() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    assert [decode(saved(image)).getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_palette_transparency_lies_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        assert [decode(saved(image, kind, transparency=1)).getpixel((x, 0)) for x in (0, 1)] == [RED, WHITE]


def test_grey_with_alpha() -> None:
    assert decode(saved(Image.new("LA", (1, 1), (0, 127)))).getpixel((0, 0)) == (128, 128, 128)


def test_cmyk() -> None:
    red = np.asarray(decode(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")), int)
    assert np.abs(red - RED).max() < 10


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32896, 128), (65535, 255)])
def test_sixteen_bits_are_scaled_and_not_clipped(value: int, expected: int) -> None:
    wide = Image.fromarray(np.full((4, 4), value, np.uint16))
    assert decode(saved(wide)).getpixel((0, 0)) == (expected,) * 3
    assert decode(saved(wide, "TIFF")).getpixel((0, 0)) == (expected,) * 3


def test_numbers_of_unknown_brightness_are_refused() -> None:
    with pytest.raises(DataError, match="32-bit"):
        decode(saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"))


def test_one_bit_and_grey() -> None:
    assert decode(saved(Image.new("1", (2, 2), 1))).getpixel((0, 0)) == WHITE
    assert decode(saved(Image.new("L", (2, 2), 7))).getpixel((0, 0)) == (7, 7, 7)


def swapped(profile: bytes) -> bytes:
    """The sRGB profile with its red and blue primaries exchanged."""
    return profile.replace(b"rXYZ", b"tmp ").replace(b"bXYZ", b"rXYZ").replace(b"tmp ", b"bXYZ")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def table_profile(space: bytes, corners: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """A printer's profile (ICC.1:2001-04, 6.5.10 lut8Type): the Lab colour at the corners of the space, and no more."""
    channels = corners.ndim - 1
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes((channels, 3, 2, 0)) + identity + ramp * channels + corners.tobytes() + ramp * 3
    header = struct.pack(">I4sI4s4s4s", 132 + 12 + len(table), b"lcms", 0x02400000, b"prtr", space, b"Lab ")
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">3I", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_colour_profile_is_honoured(kind: str) -> None:
    red = Image.new("RGB", (16, 16), RED)
    shown = np.asarray(decode(saved(red, kind, icc_profile=swapped(SRGB))), int)[8, 8]
    assert shown[2] > 200 and shown[0] < 60


def test_the_colour_profile_of_a_transparent_picture() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    decoded = read_picture(saved(image, icc_profile=swapped(SRGB)))
    assert decoded.image.getpixel((0, 0)) != RED and decoded.image.getpixel((1, 0)) == WHITE


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_by_its_profile(kind: str) -> None:
    # a press whose full black is dark red and whose other inks do nothing (Lab 8-bit: L·2.55, a + 128, b + 128)
    corners = np.empty((2, 2, 2, 2, 3), np.uint8)
    corners[..., 0, :], corners[..., 1, :] = (255, 128, 128), (102, 188, 168)
    profile = table_profile(b"CMYK", corners)
    black, cyan = (
        np.asarray(decode(saved(Image.new("CMYK", (16, 16), inks), kind, icc_profile=profile)), int)[8, 8]
        for inks in ((0, 0, 0, 255), (255, 0, 0, 0))
    )
    assert cyan.min() > 240 and black[0] > 120 and black[1] < 80


def test_a_grey_profile_holds_for_grey_with_alpha_too() -> None:
    profile = table_profile(b"GRAY", np.array([(255, 128, 128), (0, 128, 128)], np.uint8))  # white where sRGB is black
    for image in (Image.new("L", (4, 4), 0), Image.new("LA", (4, 4), (0, 255))):
        assert min(decode(saved(image, icc_profile=profile)).getpixel((0, 0))) > 250  # type: ignore[type-var, arg-type]


@pytest.mark.parametrize("profile", [b"", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()])
def test_lab(profile: bytes) -> None:
    white = decode(saved(Image.new("LAB", (4, 4), (255, 128, 128)), "TIFF", icc_profile=profile))
    assert min(white.getpixel((0, 0))) > 250  # type: ignore[type-var, arg-type]


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(saved(picture())), decode(saved(picture(), icc_profile=profile)))


@pytest.mark.parametrize("profile", [b"nonsense", b"\x00" * 200])
def test_a_broken_profile_is_passed_over(profile: bytes) -> None:
    assert np.array_equal(decode(saved(picture(), icc_profile=profile)), picture())


def test_a_profile_of_another_kind_is_passed_over() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(saved(Image.new("L", (4, 4), 9), icc_profile=profile)).getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = read_picture(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert decoded.frames == 3
    assert np.abs(np.subtract(decoded.image.getpixel((0, 0)), RED)).max() < 6
    assert read_picture(saved(frames[0], kind)).frames == 1


def test_a_preview_behind_a_jpeg_is_no_frame() -> None:
    both = saved(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), RED)])
    assert read_picture(both).frames == 1
    assert np.array_equal(decode(both), decode(saved(picture(), "JPEG")))
    at = both.index(b"MPF\0")
    assert decode(both[: at + 4] + b"\xff" * 40 + both[at + 44 :]).size == (24, 16)  # its index is damaged


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (Image.new("RGBA", (2, 1), (9, 9, 9, 255)), "PNG"),
        (Image.new("LA", (2, 1), (9, 255)), "PNG"),
        (Image.new("RGB", (2, 1), (9, 9, 9)), "PNG"),
        (Image.new("RGBA", (2, 1), (9, 9, 9, 255)), "WEBP"),
    ],
)
def test_an_alpha_channel_that_hides_nothing_is_none(image: Image.Image, kind: str) -> None:
    assert read_picture(saved(image, kind)).alpha is None


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), ("grey", 128)])
def test_the_background_shows_through(background: str, level: int) -> None:
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (255, 255, 255, 128))
    decoded = read_picture(saved(image), background=background)  # type: ignore[arg-type]
    assert decoded.alpha is not None and decoded.alpha.mode == "L"
    assert [decoded.alpha.getpixel((x, 0)) for x in range(3)] == [255, 0, 128]
    assert [decoded.image.getpixel((x, 0)) for x in (0, 1)] == [RED, (level,) * 3]
    half = decoded.image.getpixel((2, 0))
    assert isinstance(half, tuple) and abs(half[0] - round((255 * 128 + level * 127) / 255)) <= 1


def test_alpha_is_turned_with_the_picture() -> None:
    image = Image.new("RGBA", (2, 1), (1, 2, 3, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = read_picture(saved(image, exif=exif)).alpha
    assert alpha is not None and alpha.size == (1, 2) and [alpha.getpixel((0, y)) for y in (0, 1)] == [255, 0]
    assert not alpha.info


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "visible"),
    [
        (1, 0, b"\x40", ">H", 1),
        (8, 0, b"\x07\x09", ">H", 7),
        (16, 0, struct.pack(">2H", 1000, 1001), ">H", 1000),
        (8, 2, bytes((1, 2, 3, 1, 2, 4)), ">3H", (1, 2, 3)),
        (16, 2, struct.pack(">6H", 0x1234, 0x2345, 0x3456, 0xFFFF, 0, 0), ">3H", (0x1234, 0x2345, 0x3456)),
    ],
)
def test_a_png_names_one_transparent_colour(depth: int, colour: int, row: bytes, key: str, visible: object) -> None:
    numbers = visible if isinstance(visible, tuple) else (visible,)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colour, 0, 0, 0))
    parts = [header, chunk(b"tRNS", struct.pack(key, *numbers)), chunk(b"IDAT", zlib.compress(b"\0" + row))]
    alpha = read_picture(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")).alpha
    assert alpha is not None
    seen = [alpha.getpixel((x, 0)) for x in range(2)]
    assert seen == ([255, 0] if depth == 1 else [0, 255])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_colour(kind: str) -> None:
    levels = (0x8080, 0xFFFF, 0x0000)
    if kind == "PNG":
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
        row = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">3H", *levels)))
        data = b"\x89PNG\r\n\x1a\n" + header + row + chunk(b"IEND", b"")
    else:
        data = tiff(16, 2, struct.pack("<3H", *levels), samples=3)
    assert decode(data).getpixel((0, 0)) == (128, 255, 0)


def tiff(bits: int, photometric: int, strip: bytes, *, samples: int = 1) -> bytes:
    """A TIFF of one pixel (or two, of 12 bits) without compression."""
    width = 2 if bits == 12 else 1
    tags = [(256, 3, 1, width), (257, 3, 1, 1), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, photometric)]
    tags += [(273, 4, 1, 200), (277, 3, 1, samples), (278, 3, 1, 1), (279, 4, 1, len(strip))]
    if samples == 3:
        tags[2] = (258, 3, 3, 190)
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)
    return head.ljust(190, b"\0") + struct.pack("<3H", bits, bits, bits).ljust(10, b"\0") + strip


def test_twelve_bits_and_white_is_zero() -> None:
    assert decode(tiff(12, 1, b"\xff\xf0\x00")).getpixel((0, 0)) == WHITE
    assert decode(tiff(16, 0, struct.pack("<H", 0))).getpixel((0, 0)) == WHITE
    assert decode(tiff(16, 1, struct.pack("<H", 0))).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", HEIF])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.6])
def test_a_file_cut_short_is_an_error(kind: str, share: float) -> None:
    data = saved(picture(240, 160), kind)
    with pytest.raises(DataError):
        decode(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "not a picture"),
        (b"GIF89a", "damaged|not a picture"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC" if find_spec("pillow_heif") is None else "damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (b"P6 2 2 255 " + b"\x00" * 12, "not a picture"),
    ],
)
def test_what_is_no_picture(data: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        decode(data)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width: int, height: int, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(b"\x00" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(11_000, 11_000), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_a_bomb_is_refused_before_it_goes_off(size: tuple[int, int]) -> None:
    with pytest.raises(DataError):
        decode(png_of(*size))


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"zTXt", b"k\x00\x00" + zlib.compress(b"a" * 8_000_000)),
        chunk(b"iTXt", b"k\x00\x01\x00\x00\x00" + zlib.compress(b"a" * 8_000_000)),
        chunk(b"iCCP", b"k\x00\x00" + zlib.compress(bytes(8_000_000))),
    ],
)
def test_a_bomb_in_the_metadata_does_not_go_off(bomb: bytes) -> None:
    with pytest.raises(DataError):
        decode(png_of(8, 8, bomb))


BOMBS = r"""
import io, resource, struct, zlib
from PIL import Image
from vez.errors import DataError
from vez.images.decode import read_picture
from vez.images.metadata import strip_places

def saved(kind):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, kind)
    return file.getvalue()

def at(data, place, layout, *numbers):
    return data[:place] + struct.pack(layout, *numbers) + data[place + struct.calcsize(layout):]

jpeg, avif = saved("JPEG"), saved("AVIF")
entries = ((256, 4, 1, 60_000), (257, 4, 1, 60_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8))
directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
canvas = b"VP8X\x0a\0\0\0\x02\0\0\0\xff\x3f\0\xff\x3f\0"

def png(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return at(saved("PNG"), 12, "21s", header + struct.pack(">I", zlib.crc32(header)))

bombs = {
    "PNG": png(60_000, 60_000),
    "GIF": at(saved("GIF"), 6, "<HH", 60_000, 60_000),
    "BMP": at(saved("BMP"), 18, "<ii", 60_000, 60_000),
    "JPEG": at(jpeg, jpeg.index(b"\xff\xc0") + 5, ">HH", 60_000, 60_000),
    "AVIF": at(avif, avif.index(b"ispe") + 8, ">II", 60_000, 60_000),
    "WEBP": b"RIFF" + struct.pack("<I", 200) + b"WEBP" + canvas + saved("WEBP")[12:],
    "TIFF": b"II*\0" + struct.pack("<I", 8) + directory,
    "rows": png(1, 100_000_000),
}
for kind in ("PNG", "WEBP", "AVIF", "TIFF"):
    read_picture(saved(kind))  # what the decoders keep for themselves
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for kind, bomb in bombs.items():
    strip_places(bomb)
    try:
        read_picture(bomb)
    except DataError as error:
        print(kind, error)
    else:
        raise SystemExit(f"{kind} was read")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert grown < 20_000, grown
"""


def test_what_a_header_claims_costs_no_memory() -> None:
    done = subprocess.run([sys.executable, "-c", BOMBS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert all("pixels" in said[kind] for kind in ("PNG", "GIF", "BMP", "JPEG", "TIFF", "rows")), said
    assert set(said) >= {"AVIF", "WEBP"}


def test_a_jpeg_of_countless_scans_is_refused() -> None:
    data = saved(picture(), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    last = data[scan:-2]
    assert decode(data[:scan] + last * 3 + b"\xff\xd9").size == (24, 16)
    with pytest.raises(DataError, match="scans"):
        decode(data[:scan] + last * 200 + b"\xff\xd9")


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="vez[heic] is installed")
def test_the_extra_for_heic_is_named() -> None:
    with pytest.raises(DataError, match=r'pip install "vez\[heic\]"'):
        decode(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")


@pytest.mark.parametrize("kind", [HEIF])
def test_heic(kind: str) -> None:
    image = picture().resize((64, 48), Image.Resampling.BICUBIC)
    decoded = read_picture(saved(image, kind))
    assert np.abs(np.asarray(decoded.image, int) - np.asarray(image, int)).mean() < 8
    assert (decoded.alpha, decoded.frames, decoded.places) == (None, 1, False)
    assert "HEIF" not in Image.OPEN  # nobody else's Image.open is changed
    seen = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    seen.paste((0, 0, 0, 0), (0, 0, 32, 64))
    alpha = read_picture(saved(seen, kind)).alpha
    assert alpha is not None and alpha.getpixel((60, 30)) == 255 and alpha.getpixel((4, 30)) == 0
    with pytest.raises(DataError, match="64×48 pixels"):
        read_picture(saved(image, kind), max_pixels=1000)


def test_an_avif_may_call_itself_an_image_container() -> None:
    data = saved(picture(), "AVIF")
    assert data[8:12] == b"avif" and b"avif" in data[16:32]
    assert decode(data[:8] + b"mif1" + data[12:]).size == (24, 16)


def test_a_jpeg_may_come_out_smaller() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = picture().resize((1024, 640), Image.Resampling.BICUBIC)
    data = saved(image, "JPEG", exif=exif)
    small, full = read_picture(data, at_least=150), read_picture(data)
    assert small.size == full.size == full.image.size == (640, 1024)
    assert small.image.size == (160, 256)
    expected = np.asarray(full.image.resize((160, 256), Image.Resampling.BOX), int)
    assert np.abs(np.asarray(small.image, int) - expected).mean() < 1
    assert read_picture(data, at_least=641).image.size == (640, 1024)
    assert read_picture(saved(image), at_least=150).image.size == (1024, 640)


def test_the_cap_can_be_set() -> None:
    assert decode(saved(picture()), max_pixels=24 * 16).size == (24, 16)
    with pytest.raises(DataError, match="24×16 pixels"):
        decode(saved(picture()), max_pixels=24 * 16 - 1)


def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(picture()))
    assert np.array_equal(decode(tmp_path / "a.png"), picture())
    for path in (tmp_path, tmp_path / "none.png"):
        with pytest.raises(DataError, match="cannot be read"):
            decode(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"]))
def test_whatever_is_broken_is_a_picture_or_a_data_error(data: st.DataObject, kind: str) -> None:
    broken = bytearray(saved(picture(), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert decode(bytes(broken), max_pixels=10_000).mode == "RGB"
        except DataError as error:
            assert str(error)


@pytest.mark.parametrize("how", [{"lossless": True}, {"lossless": False}, {"exif": b"Exif\0\0"}])
def test_a_webp_is_measured_before_its_decoder_takes_memory(
    how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(kept, "WEBP", **how)
    assert decode(kept.getvalue(), max_pixels=60_000).size == (300, 200)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("it was handed to the decoder"))
    with pytest.raises(DataError, match="it has 300×200 pixels, more than 59,999"):
        decode(kept.getvalue(), max_pixels=59_999)
