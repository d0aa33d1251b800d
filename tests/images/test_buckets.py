from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vez.images.buckets import nearest, shapes, step

RESOLUTIONS = st.integers(8, 256).map(lambda n: n * 8)
# What sd-scripts prints for resolution 512 and its defaults (256 to 1024 in steps of 64).
KOHYA_512 = (
    (256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576), (512, 512),
    (576, 448), (640, 384), (704, 320), (768, 320), (832, 256), (896, 256), (960, 256), (1024, 256),
)  # fmt: skip


def turned(of: tuple[tuple[int, int], ...]) -> set[tuple[int, int]]:
    return {(height, width) for width, height in of}


def test_square_is_one_shape() -> None:
    assert shapes("square", 520) == ((520, 520),)


def test_kohya_at_512_is_what_sd_scripts_makes() -> None:
    assert shapes("kohya", 512) == KOHYA_512


def test_a_small_base_has_a_choice_of_shapes() -> None:
    made = shapes("kohya", 128)
    assert step(128) == 16 and made == tuple((w // 4, h // 4) for w, h in KOHYA_512)


@given(resolution=RESOLUTIONS)
def test_kohya_shapes_keep_their_area_limits_and_steps(resolution: int) -> None:
    made, unit = shapes("kohya", resolution), step(resolution)
    assert set(made) == turned(made) and len(set(made)) == len(made) and list(made) == sorted(made)
    for width, height in made:
        assert width % unit == height % unit == 0
        assert width * height <= resolution**2
        assert resolution // 2 - unit < min(width, height) and max(width, height) <= 2 * resolution
    assert sum(width == height for width, height in made) == 1


def test_sdxl_at_1024_is_the_list_of_the_paper() -> None:
    made = shapes("sdxl", 1024)
    assert len(made) == 40
    for shape in [
        (2048, 512),
        (512, 2048),
        (1344, 704),
        (1344, 768),
        (768, 1344),
        (1216, 832),
        (896, 1152),
        (1024,) * 2,
    ]:
        assert shape in made
    assert set(made) ^ turned(made) == {(1344, 704), (704, 1344)}  # the paper has the wide one only
    assert all(width % 64 == height % 64 == 0 for width, height in made)
    assert all(0.89 < width * height / 1024**2 <= 1.07 for width, height in made)


@given(resolution=RESOLUTIONS)
def test_sdxl_shapes_scale(resolution: int) -> None:
    made, unit = shapes("sdxl", resolution), step(resolution)
    assert all(width % unit == height % unit == 0 and width > 0 < height for width, height in made)
    assert list(made) == sorted(set(made))


@pytest.mark.parametrize("resolution", [128, 256, 512, 768, 1280, 2048])
def test_scaled_sdxl_shapes_are_those_of_diffusers(resolution: int) -> None:
    from diffusers.training_utils import generate_aspect_ratio_buckets

    listed = [(height, width) for width, height in shapes("sdxl", 1024)]
    theirs = generate_aspect_ratio_buckets(resolution, divisibility=step(resolution), base_resolutions=listed)
    assert set(shapes("sdxl", resolution)) == {(width, height) for height, width in theirs}


@pytest.mark.parametrize("kind", ["kohya", "sdxl"])
def test_a_picture_of_a_bucket_s_shape_gets_that_bucket_here_and_in_diffusers(kind: str) -> None:
    from diffusers.training_utils import find_nearest_bucket

    made = shapes(kind, 1024)  # type: ignore[arg-type]
    options = [(height, width) for width, height in made]
    for width, height in made:
        ours = nearest(made, width * 3, height * 3)
        theirs = options[find_nearest_bucket(height * 3, width * 3, options)]
        assert Fraction(*ours) == Fraction(width, height) == Fraction(theirs[1], theirs[0])


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), resolution=RESOLUTIONS)
def test_the_nearest_shape_cuts_the_least_away(width: int, height: int, resolution: int) -> None:
    made = shapes("kohya", resolution)

    def kept(shape: tuple[int, int]) -> Fraction:
        scale = max(Fraction(shape[0], width), Fraction(shape[1], height))
        return Fraction(shape[0] * shape[1]) / (width * height * scale**2)

    found = nearest(made, width, height)
    assert float(kept(found)) >= float(max(kept(shape) for shape in made)) * (1 - 1e-9)
    other = nearest(made, height, width)
    assert kept(found) == pytest.approx(float(kept((other[1], other[0]))))  # the same for the picture turned
