"""What is broken in pictures, read off their pixels: empty ones, blur, lettering. No taste, and no anatomy."""

from typing import Final

from vez.metrics.material import Material, Measure, Metric, Pixels, Vectors, table
from vez.metrics.summary import Values

FLAT: Final = 4.0
"""Standard deviation of brightness, in levels of 255, below which a picture shows nothing: black, grey, or the result
of numbers that were not finite."""

LETTERED: Final = 0.0015
"""Share of a picture's area in rows of letters from which it counts as lettered, as in the checks of a dataset."""


def _each(values: Vectors) -> list[tuple[int, float]]:
    return [(i, float(value)) for i, value in enumerate(values)]


def _of(name: str) -> Measure:
    def measure(m: Material) -> Values:
        return {} if m.pixels is None else table(m, _each(_values(m.pixels, name)))

    return measure


def _values(pixels: Pixels, name: str) -> Vectors:
    if name == "flat":
        return (pixels.contrast < FLAT).astype(float)
    return pixels.blur if name == "blur" else (pixels.lettering > LETTERED).astype(float)


_NEEDS = "needs the pictures themselves"

ARTEFACTS: Final[tuple[Metric, ...]] = (
    Metric(
        "flat",
        "artefacts",
        "Share of pictures that show nothing: black, or one shade. Numbers that are not finite end as such.",
        _NEEDS,
        _of("flat"),
    ),
    Metric(
        "blur",
        "artefacts",
        "How soft the sharpest parts of the pictures are, 0 to 1 (Crete et al. 2007): only the difference to the base "
        "says something, since a painting or a snowy field is soft by right.",
        _NEEDS,
        _of("blur"),
    ),
    Metric(
        "lettering",
        "artefacts",
        "Share of pictures with what looks like a row of printed letters: watermarks and captions that were learned. "
        "A picture with the words in it can please CLIP.",
        _NEEDS,
        _of("lettering"),
    ),
)
