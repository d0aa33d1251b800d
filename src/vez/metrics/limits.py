"""Limits that a truth test has set, by the encoder that they hold for. Data, no code (docs/truth.md says where from).

A limit is a number on an encoder's own scale: what is a large drift to one is none to another. So there is a table for
each encoder that the truth test has run with, by the SHA-256 of its weights (`vez.metrics.embed`). For any other the
guesses of `vez.metrics.rules` stand, and are called uncalibrated.

Similarity and leak have none: their scale ends where the held-out pictures are alike, and six others of one concept
put that end elsewhere, so that a limit found with one six stopped six of seven sound LoRAs with another.
"""

from collections.abc import Mapping
from typing import Final

TINY: Final = "531e8be2346fb792ddd253ef54a0227d272384ba144966d936ac9bcad24a9a0c"
"""The CLIP of the embedded base `tiny`."""

LIMITS: Final[Mapping[str, Mapping[str, float]]] = {
    TINY: {
        "T2": 0.45,
        "unrelated": 0.30,
        "drift": 3.7,
        "copying": 0.20,
        "copies": 0.015,
        "repeats": 0.25,
        "flat": 0.015,
    },
}
"""Encoder → metric → its limit, or for a guard (T2, unrelated) the margin. What is not named keeps its guess."""
