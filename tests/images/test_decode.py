import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from vez.errors import DataError
from vez.images.decode import decode

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# The tag's eight values and where a picture whose stored top-left corner is red shows it: EXIF 2.32, 4.6.4.A.
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(width: int = 24, height: int = 16) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_it_upright(orientation: int, kind: str) -> None:
    stored = Image.new("RGB", (32, 16), "white")
    stored.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode(saved(stored, kind, exif=exif))
    assert upright.size == ((32, 16) if orientation < 5 else (16, 32))
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


def test_the_colour_profile_is_honoured() -> None:
    # A profile whose red and blue are exchanged would be ideal; LCMS makes Lab and XYZ profiles, so Lab it is.
    lab = Image.new("LAB", (4, 4), (255, 128, 128))  # L* 100, a* b* 0: white
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    white = decode(saved(lab, "TIFF", icc_profile=profile))
    assert min(white.getpixel((0, 0))) > 250  # type: ignore[type-var, arg-type]


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, marked = decode(saved(picture())), decode(saved(picture(), icc_profile=profile))
    assert np.abs(np.asarray(plain, int) - np.asarray(marked, int)).max() <= 1


@pytest.mark.parametrize("profile", [b"nonsense", b"\x00" * 200])
def test_a_broken_profile_is_passed_over(profile: bytes) -> None:
    assert np.array_equal(decode(saved(picture(), icc_profile=profile)), picture())


def test_a_profile_of_another_kind_is_passed_over() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decode(saved(Image.new("L", (4, 4), 9), icc_profile=profile)).getpixel((0, 0)) == (9, 9, 9)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert decode(saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)).getpixel((0, 0)) == RED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
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
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC"),
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


def test_a_text_bomb_does_not_go_off() -> None:
    bomb = chunk(b"zTXt", b"k\x00\x00" + zlib.compress(b"a" * 8_000_000))
    with pytest.raises(DataError):
        decode(png_of(8, 8, bomb))


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
