import io
import struct
import time
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from vez.errors import DataError
from vez.images.decode import read_picture
from vez.images.metadata import has_places, strip_places

DEGREES = 1_234_567_891  # a number whose bytes stand nowhere else
LATITUDE, SECRET = struct.pack("<I", DEGREES), b"the maker knows: 44.81 N"
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description %s/></rdf:RDF>'
    b'</x:xmpmeta><?xpacket end="w"?>'
)
CITY = XMP % b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:City="Novi Sad"'
RATING = XMP % b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="5" photoshop:City=""'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HEIF = pytest.param("HEIF", marks=pytest.mark.skipif(find_spec("pillow_heif") is None, reason="needs vez[heic]"))
KINDS = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", HEIF]


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8))


def exif(*, orientation: int = 6, gps: dict[int, object] | None = None) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "Maker Corp & Sons"
    block[0x8769] = {0x9286: b"a comment of the person", 0x927C: SECRET}
    coordinates: dict[int, object] = {0: b"\2\3\0\0", 1: "N", 3: "E", 4: (20.0, 27.0, 10.0), 29: "2024:01:01"}
    coordinates[2] = (IFDRational(DEGREES, 27_654_321), 48.0, 30.5)
    block[0x8825] = coordinates if gps is None else gps
    return block.tobytes()


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    if kind == "HEIF":
        import pillow_heif

        known = {key: value for key, value in options.items() if key in ("exif", "xmp")}
        pillow_heif.from_pillow(picture()).save(file, quality=80, **known)
    else:
        picture().save(file, kind, **options)
    return file.getvalue()


def same_picture(before: bytes, after: bytes) -> bool:
    a, b = read_picture(before), read_picture(after)
    return a.image.size == b.image.size and a.image.tobytes() == b.image.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_coordinates_go_and_all_else_stays(kind: str) -> None:
    told = saved(kind, exif=exif(), icc_profile=PROFILE)
    assert has_places(told) and read_picture(told).places
    clean = strip_places(told)
    assert not has_places(clean) and not read_picture(clean).places
    assert LATITUDE not in clean and LATITUDE[::-1] not in clean and SECRET not in clean
    assert b"Maker Corp & Sons" in clean and b"a comment of the person" in clean
    assert read_picture(clean).image.size == (24, 32) and same_picture(told, clean)
    if kind != "HEIF":
        with Image.open(io.BytesIO(clean)) as image:
            assert image.info["icc_profile"] == PROFILE
            assert image.getexif()[0x0112] == 6 and not image.getexif().get_ifd(0x8825)
    assert strip_places(clean) is clean


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", HEIF])
def test_xmp_that_names_a_town_goes_whole(kind: str) -> None:
    told = saved(kind, xmp=CITY, exif=exif(gps={}))
    assert has_places(told)
    clean = strip_places(told)
    assert b"Novi Sad" not in clean and len(clean) == len(told) and same_picture(told, clean)
    assert SECRET in clean  # the maker's note stays where EXIF tells no place


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gps", [{}, {0: b"\2\3\0\0", 29: "2024:01:01"}])
def test_a_file_without_places_is_left_alone(kind: str, gps: dict[int, object]) -> None:
    data = saved(kind, exif=exif(gps=gps), xmp=RATING)
    assert not has_places(data) and strip_places(data) is data


@pytest.mark.parametrize("kind", ["BMP", "GIF"])
def test_formats_without_places(kind: str) -> None:
    data = saved(kind)
    assert not has_places(data) and strip_places(data) is data


def test_what_is_no_picture_tells_no_place() -> None:
    for data in (b"", b"text", b"GPSLatitude=44"):
        assert not has_places(data) and strip_places(data) is data


@pytest.mark.parametrize(
    "says",
    [
        b'exif:GPSLatitude="44,48.5N"',
        b'drone-dji:GpsLongitude="20"',
        b'geo:lat="44.8"',
        b'a:State="Vojvodina"',
        b'Iptc4xmpCore:Location="the fortress"',
        b'Iptc4xmpCore:CountryCode="RS"',
    ],
)
def test_places_in_xmp(says: bytes) -> None:
    data = saved("JPEG", xmp=XMP % says)
    assert has_places(data) and says not in strip_places(data)
    nested = says.replace(b'="', b"><rdf:Seq><rdf:li>").replace(b'"', b"</rdf:li></rdf:Seq>")
    assert has_places(saved("JPEG", xmp=CITY.replace(b"photoshop:City", b"x:y") + b"<" + nested))


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    data = saved("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def iim(record: int, number: int, value: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, record, number, len(value)) + value


def resource(number: int, content: bytes) -> bytes:
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + b"\0\0"
        + struct.pack(">I", len(content))
        + content
        + b"\0" * (len(content) % 2)
    )


def test_iptc_in_a_jpeg() -> None:
    def jpeg(number: int, value: bytes) -> bytes:
        resources = resource(0x03ED, bytes(16)) + resource(0x0404, iim(2, 0, b"\0\2") + iim(2, number, value))
        return with_segments(segment(0xED, b"Photoshop 3.0\0" + resources))

    told = jpeg(90, b"Novi Sad")
    clean = strip_places(told)
    assert has_places(told) and b"Novi Sad" not in clean and same_picture(told, clean)
    for silent in (jpeg(80, b"A. Photographer"), jpeg(90, b"")):
        assert not has_places(silent)


@pytest.mark.parametrize("number", [0x0422, 0x0424])
def test_exif_and_xmp_inside_photoshops_resources(number: int) -> None:
    block = exif()[6:] if number == 0x0422 else CITY
    told = with_segments(segment(0xED, b"Photoshop 3.0\0" + resource(number, block)))
    assert has_places(told) and not has_places(strip_places(told))


def test_extended_xmp_in_two_parts() -> None:
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + struct.pack(">I", len(CITY))
    cut = CITY.index(b"City") + 2  # in the middle of the word, and the second part comes first
    parts = [segment(0xE1, head + struct.pack(">I", at) + text) for at, text in ((cut, CITY[cut:]), (0, CITY[:cut]))]
    told = with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + RATING), *parts)
    clean = strip_places(told)
    assert has_places(told) and b"Novi Sad" not in clean and not has_places(clean)


def test_a_claim_of_origin_that_repeats_the_coordinates() -> None:
    told = with_segments(segment(0xEB, b'JP\0\1 {"exif:GPSLatitude": "44,48.5N"}'))
    assert has_places(told) and b"44,48.5N" not in strip_places(told)


@pytest.mark.parametrize(
    "behind",
    [saved("JPEG", exif=exif()), b"\0\0\0\x18ftypmp42 ... \xa9xyz\0\x12+44.8+020.4/", CITY],
    ids=["jpeg", "film", "xmp"],
)
def test_what_is_appended_goes_where_it_tells_a_place(behind: bytes) -> None:
    plain = saved("JPEG")
    assert strip_places(plain + behind) == plain
    assert not has_places(plain + b"\0" * 100) and not has_places(plain + plain)
    png = saved("PNG")
    assert strip_places(png + behind) == png


def test_a_long_exif_block_goes_on_in_a_second_segment() -> None:
    block = exif()[6:]
    told = with_segments(segment(0xE1, b"Exif\0\0" + block[:60]), segment(0xE1, b"Exif\0\0" + block[60:]))
    assert has_places(told) and LATITUDE not in (clean := strip_places(told)) and LATITUDE[::-1] not in clean


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunks(*chunks: bytes) -> bytes:
    data = saved("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


@pytest.mark.parametrize("packed", [False, True])
def test_xmp_in_a_png(packed: bool) -> None:
    text = zlib.compress(CITY) if packed else CITY
    told = with_chunks(chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes((packed, 0)) + b"\0\0" + text))
    assert has_places(told) and strip_places(told) == saved("PNG")


@pytest.mark.parametrize("name", [b"exif", b"APP1"])
def test_imagemagicks_profiles_in_a_png(name: bytes) -> None:
    def profile(block: bytes) -> bytes:
        text = b"\n%s\n%8d\n%s\n" % (name, len(block), block.hex().encode())
        return with_chunks(chunk(b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text)))

    told = profile(exif())
    clean = strip_places(told)
    assert has_places(told) and not has_places(clean) and same_picture(told, clean)
    if name == b"exif":  # the orientation, which Pillow reads from there
        assert read_picture(clean).image.size == (24, 32)
    assert strip_places(profile(CITY)) == saved("PNG")
    assert not has_places(profile(exif(gps={})))


def test_other_texts_of_a_png() -> None:
    assert strip_places(with_chunks(chunk(b"tEXt", b"exif:GPSLatitude\x0044/1"))) == saved("PNG")
    prompt = with_chunks(chunk(b"tEXt", b"parameters\0a GPS device; latitude: 44"))
    assert strip_places(prompt) is prompt
    assert strip_places(with_chunks(chunk(b"caBX", b"GPSLatitude 44"))) == saved("PNG")


def test_the_changed_chunk_has_its_checksum() -> None:
    clean = strip_places(saved("PNG", exif=exif()))
    at = clean.index(b"eXIf")
    length = struct.unpack(">I", clean[at - 4 : at])[0]
    assert clean[at + 4 + length : at + 8 + length] == struct.pack(">I", zlib.crc32(clean[at : at + 4 + length]))


def test_geotiff_tags_and_xmp_in_a_tiff() -> None:
    for tag, value in ((33922, (0.0, 0.0, 0.0, 20.45, 44.81, 0.0)), (700, CITY)):
        told = saved("TIFF", tiffinfo={tag: value})
        clean = strip_places(told)
        assert has_places(told) and not has_places(clean) and same_picture(told, clean) and len(told) == len(clean)


def test_a_big_tiff() -> None:
    told = saved("TIFF", exif=exif(orientation=1), big_tiff=True)
    assert told[:4] == b"II\x2b\0" and has_places(told)
    clean = strip_places(told)
    assert LATITUDE not in clean and same_picture(told, clean)


def test_xmp_in_a_gif() -> None:
    plain = saved("GIF")
    trailer = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    at = 13 + 3 * 256  # behind the palette
    told = plain[:at] + b"\x21\xff\x0bXMP DataXMP" + CITY + trailer + plain[at:]
    clean = strip_places(told)
    assert has_places(told) and b"Novi Sad" not in clean and same_picture(told, clean)


def tiff_block(*entries: tuple[int, int, int, int], tail: bytes = b"") -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4) + tail


def test_a_thumbnail_with_places_of_its_own() -> None:
    inner = saved("JPEG", exif=exif())
    at = 26 + 42  # behind two directories, of one entry and of three
    first = tiff_block((0x0112, 3, 1, 1))[:-4] + struct.pack("<I", 26)
    second = tiff_block((259, 3, 1, 6), (513, 4, 1, at), (514, 4, 1, len(inner)))[8:]
    told = with_segments(segment(0xE1, b"Exif\0\0" + first + second + inner))
    clean = strip_places(told)
    assert has_places(told) and LATITUDE not in clean and LATITUDE[::-1] not in clean and same_picture(told, clean)


def test_a_gps_directory_across_the_main_one_is_refused() -> None:
    # the GPS directory begins at the main directory itself, whose second entry reads as a latitude there
    entangled = with_segments(segment(0xE1, b"Exif\0\0" + tiff_block((2, 5, 1, 8), (0x8825, 4, 1, 8))))
    assert has_places(entangled)
    with pytest.raises(DataError, match="metadata"):
        strip_places(entangled)


def test_more_entries_than_can_be_followed_are_refused() -> None:
    pointers = b"".join(struct.pack("<I", 8 + 2 * i) for i in range(2000))
    block = tiff_block((330, 4, 2000, 26), tail=pointers)
    many = with_segments(segment(0xE1, b"Exif\0\0" + block))
    assert has_places(many)
    with pytest.raises(DataError, match="entries"):
        strip_places(many)


@pytest.mark.parametrize(
    "block",
    [
        b"<photoshop:City" + b" " * 3_000_000,
        b'"gps' * 1_000_000,
        b"<x:xmpmeta" * 300_000,
        b"Exif\0\0II" * 300_000,
        b"\x1c\x02" * 1_000_000,
        b"8BIM\x04\x04" * 300_000,
        b"\xff\xe1\0\2" * 15_000,
    ],
)
def test_no_block_takes_long(block: bytes) -> None:
    start = time.process_time()
    for data in (
        saved("JPEG") + block,
        saved("JPEG")[:2] + block,
        b"GIF89a\x21\xff\x0bXMP DataXMP" + block,
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 700, 1, len(block), 26) + bytes(4) + block,
        b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 34377, 1, len(block), 26) + bytes(4) + block,
    ):
        has_places(data)
    assert time.process_time() - start < 4


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400), order=st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0"]))
def test_any_block_is_answered(data: bytes, order: bytes) -> None:
    told = with_segments(segment(0xE1, b"Exif\0\0" + order + data))
    try:
        clean = strip_places(told)
    except DataError:
        assert has_places(told)
    else:
        assert not has_places(clean) and (clean == told) == (not has_places(told))
