import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from images.photographs import needs_photographs, photographs
from vez.config import Checks
from vez.images.checks import Picture, check, measure
from vez.images.findings import Finding
from vez.images.pixels import pixels_sha256


def texture(seed: int = 0, width: int = 160, height: int = 160) -> Image.Image:
    """Coarse shapes with sharp edges, and fine grain: something to be sharp about."""
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.NEAREST
    )
    grain = random.integers(-12, 13, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(shapes, int) + grain, 0, 255).astype(np.uint8))


def findings(*images: Image.Image, resolution: int = 128, **thresholds: float) -> list[Finding]:
    pictures = [measure(f"{i}.png", image, resolution=resolution) for i, image in enumerate(images)]
    return check(pictures, resolution=resolution, thresholds=Checks(**thresholds))


def names(*images: Image.Image, **options: object) -> list[tuple[str, str]]:
    return [(f.file, f.check) for f in findings(*images, **options)]  # type: ignore[arg-type]


def test_a_good_picture_has_no_finding() -> None:
    assert findings(texture()) == []


@pytest.mark.parametrize(("resolution", "tiny"), [(128, False), (160, False), (168, True), (512, True)])
def test_tiny_is_relative_to_the_resolution(resolution: int, tiny: bool) -> None:
    assert [f.check for f in findings(texture(), resolution=resolution)] == (["tiny"] if tiny else [])


def test_what_cannot_be_read_is_one_finding() -> None:
    found = check([Picture("a.jpg", error="it is damaged")], resolution=128, thresholds=Checks())
    assert [(f.file, f.check, f.value) for f in found] == [("a.jpg", "unreadable", "it is damaged")]


@pytest.mark.parametrize("sigma", [2.5, 5])
def test_blurred(sigma: float) -> None:
    assert names(texture().filter(ImageFilter.GaussianBlur(sigma))) == [("0.png", "blurred")]


def test_a_sharp_subject_before_a_soft_background_is_sharp() -> None:
    soft = texture().filter(ImageFilter.GaussianBlur(5))
    soft.paste(texture().crop((40, 40, 140, 140)), (40, 40))
    assert names(soft) == []


def test_an_empty_picture_shows_nothing() -> None:
    assert ("0.png", "blurred") in names(Image.new("RGB", (160, 160), "grey"))


def test_dark_and_light() -> None:
    dark = ImageEnhance.Brightness(texture()).enhance(0.2)
    light = Image.eval(dark, lambda value: 255 - value)
    assert names(dark) == [("0.png", "dark")] and names(light) == [("0.png", "light")]


def test_odd_aspect() -> None:
    assert names(texture(width=480)) == [("0.png", "odd-aspect")]
    assert names(texture(width=480), aspect=3.0) == []


def test_exact_duplicates_name_the_earlier_file() -> None:
    found = findings(texture(), texture(1), texture())
    assert [(f.file, f.check, f.other) for f in found] == [("2.png", "exact-duplicate", "0.png")]


def test_the_same_pixels_in_another_shape_are_no_duplicate() -> None:
    assert pixels_sha256(Image.new("RGB", (2, 8))) != pixels_sha256(Image.new("RGB", (8, 2)))


def recompressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def mirrored(image: Image.Image) -> Image.Image:
    return recompressed(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


@pytest.mark.parametrize("change", [recompressed, halved, mirrored])
def test_near_duplicates(change: object) -> None:
    smooth = texture().filter(ImageFilter.GaussianBlur(2))
    found = names(smooth, change(smooth), resolution=64)  # type: ignore[operator]
    assert ("1.png", "near-duplicate") in found


def test_every_finding_says_why_and_what_to_do() -> None:
    found = findings(Image.new("RGB", (50, 200)), Image.new("RGB", (50, 200)))
    assert {f.check for f in found} == {"tiny", "blurred", "dark", "odd-aspect", "exact-duplicate"}
    assert all(f.why and f.fix for f in found)


@needs_photographs
@pytest.mark.parametrize("resolution", [128, 512])
def test_real_photographs_have_one_hidden_duplicate_and_no_false_alarm(resolution: int) -> None:
    pictures = [measure(file, image, resolution=resolution) for file, image in photographs().items()]
    found = check(pictures, resolution=resolution, thresholds=Checks())
    # tiny is a matter of how the test shrinks them
    assert [(f.file, f.check, f.other) for f in found if f.check != "tiny"] == [
        ("dog5/03.jpg", "near-duplicate", "dog5/02.jpg")
    ]


@needs_photographs
def test_every_blurred_photograph_is_found() -> None:
    for file, image in list(photographs().items())[::3]:
        side = min(image.size)
        soft = image.filter(ImageFilter.GaussianBlur(side / 128))  # 2 pixels at a resolution of 256
        assert names(soft, resolution=256)[:1] in ([("0.png", "blurred")], [("0.png", "tiny")]), file


@needs_photographs
def test_every_copy_of_a_photograph_is_found() -> None:
    missed = []
    for file, image in photographs().items():
        for change in (recompressed, halved, mirrored):
            if ("1.png", "near-duplicate") not in names(image, change(image)):
                missed.append((file, change.__name__))
    assert not missed
