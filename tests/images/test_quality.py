import numpy as np
import pytest
from PIL import Image, ImageFilter

from images.drawn import recompressed, scenery, texture
from images.photographs import needs_photographs, photographs
from vez.images.quality import blur, information, missing_detail, training_view


def enlarged(image: Image.Image, factor: float, how: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), how)


def test_the_training_view_is_never_enlarged_and_never_long() -> None:
    assert training_view(Image.new("RGB", (300, 200)), 512).shape == (200, 300)
    assert training_view(Image.new("RGB", (1200, 600)), 256).shape == (256, 512)
    assert training_view(Image.new("RGB", (9000, 300)), 256).shape == (256, 1024)


def test_blur_grows_with_blur() -> None:
    values = [blur(training_view(texture().filter(ImageFilter.GaussianBlur(s)), 160)) for s in (0, 1, 2, 4)]
    assert values == sorted(values) and values[0] < 0.3 < 0.6 < values[-1]


def test_information_is_the_entropy_of_the_brightness() -> None:
    assert information(np.zeros((10, 10), np.float32)) == 0
    assert information(np.repeat([0.0, 1.0], 50).reshape(10, 10).astype(np.float32)) == pytest.approx(1)
    every = (np.arange(256, dtype=np.float32) / 255).reshape(16, 16)
    assert information(every) == pytest.approx(8)


@pytest.mark.parametrize("how", [Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
@pytest.mark.parametrize("factor", [2, 3])
def test_enlarging_shows(factor: float, how: Image.Resampling) -> None:
    for seed in range(4):
        small = scenery(seed, 256)
        assert missing_detail(small) < 0.3
        assert missing_detail(enlarged(small, factor, how)) > 0.55


def test_nothing_is_said_of_small_and_of_empty_pictures() -> None:
    assert missing_detail(scenery(0, 120)) == 0
    assert missing_detail(Image.new("RGB", (400, 400), "grey")) == 0


@needs_photographs
def test_enlarged_photographs_are_told_from_photographs() -> None:
    """At the default threshold of 0.55: no false alarm; ×2 and ×3 all but always found; half survive JPEG."""
    plain, twice, thrice, saved = [], [], [], []
    for image in photographs().values():
        small = image.reduce(2)
        plain += [missing_detail(image), missing_detail(recompressed(image))]
        twice.append(missing_detail(enlarged(small, 2)))
        thrice.append(missing_detail(enlarged(small, 3, Image.Resampling.BICUBIC)))
        saved.append(missing_detail(recompressed(enlarged(small, 3), 85)))
    assert max(plain) < 0.5
    assert np.mean(np.array(twice) > 0.55) >= 0.9
    assert np.mean(np.array(thrice) > 0.55) >= 0.9
    assert np.mean(np.array(saved) > 0.55) >= 0.5


@needs_photographs
def test_a_soft_background_is_no_enlargement() -> None:
    for file, image in photographs().items():
        soft = image.filter(ImageFilter.GaussianBlur(4))
        w, h = image.size
        box = (w // 5, h // 5, w * 4 // 5, h * 4 // 5)
        soft.paste(image.crop(box), box)
        assert missing_detail(soft) < 0.55, file
