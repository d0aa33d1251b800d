import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from vez.report.pictures import Wanted, embed


def noise(path: Path, size: int, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))


def test_a_small_picture_keeps_every_pixel(tmp_path: Path) -> None:
    path = noise(tmp_path / "a.png", 64)
    want = Wanted(path, 320)
    picture = embed([want], budget=10**6).pictures[want]
    assert (picture.width, picture.height) == (64, 64)
    assert np.array_equal(np.asarray(opened(picture.uri).convert("RGB")), np.asarray(Image.open(path)))


def test_a_large_picture_is_made_small_and_keeps_its_shape(tmp_path: Path) -> None:
    Image.new("RGB", (800, 400), "red").save(tmp_path / "a.png")
    want = Wanted(tmp_path / "a.png", 320)
    picture = embed([want], budget=10**6).pictures[want]
    assert (picture.width, picture.height) == (320, 160) == opened(picture.uri).size


def test_everything_shrinks_until_it_fits(tmp_path: Path) -> None:
    wanted = [Wanted(noise(tmp_path / f"{i}.png", 400, i), 320) for i in range(3)]
    whole = embed(wanted, budget=10**7)
    assert (whole.scale, len(whole.pictures)) == (1.0, 3)
    tight = embed(wanted, budget=whole.size // 2)
    assert tight.scale < 1 and len(tight.pictures) == 3
    assert tight.size == sum(len(p.uri) for p in tight.pictures.values()) <= whole.size // 2


def test_what_never_fits_is_left_out_from_the_end(tmp_path: Path) -> None:
    wanted = [Wanted(noise(tmp_path / f"{i}.png", 400, i), 320) for i in range(3)]
    smallest = embed(wanted[:1], budget=1).left_out
    assert smallest == (wanted[0],)
    one = embed(wanted, budget=3_500)
    assert 0 < len(one.left_out) < 3 and one.left_out == tuple(wanted[-len(one.left_out) :])
    assert one.size <= 3_500


def test_a_picture_that_stands_on_the_page_twice_takes_its_room_twice(tmp_path: Path) -> None:
    want = Wanted(noise(tmp_path / "a.png", 64), 320)
    assert embed([want, want], budget=10**6).size == 2 * embed([want], budget=10**6).size
    assert len(embed([want, want], budget=10**6).pictures) == 1


def test_what_is_no_picture_is_said_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"<script>")
    good, bad, gone = (
        Wanted(noise(tmp_path / "a.png", 64), 64),
        Wanted(tmp_path / "bad.png", 64),
        Wanted(tmp_path / "x", 64),
    )
    album = embed([bad, good, gone], budget=10**6)
    assert set(album.pictures) == {good}
    assert set(album.failed) == {bad, gone}
    assert all(album.failed.values())


def test_metadata_does_not_travel_along(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    Image.new("RGB", (50, 50)).save(tmp_path / "a.jpg", exif=exif, comment=b"secret place")
    want = Wanted(tmp_path / "a.jpg", 50)
    data = base64.b64decode(embed([want], budget=10**6).pictures[want].uri.split(",")[1])
    assert b"secret" not in data
