"""Real photographs, where they are at hand: the folder of google/dreambooth beside the repository."""

import os
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from vez.images.decode import decode

DATA = Path(os.environ.get("VEZ_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
FOLDER = DATA / "dreambooth"
# dog5 hides a mirrored copy; the cartoons share a flat background; teapot and cat are dark and soft.
HARD = ("dog5", "red_cartoon", "cat", "teapot")
needs_photographs = pytest.mark.skipif(not FOLDER.is_dir(), reason="no photographs: set VEZ_SHARED_DATA")


@cache
def photographs() -> dict[str, Image.Image]:
    """Name ("dog5/02.jpg") → the picture, its long side at most 512 pixels to keep the tests quick."""
    pictures = {}
    for path in sorted(path for name in HARD for path in (FOLDER / name).glob("*.jpg")):
        image = decode(path)
        image.thumbnail((512, 512))
        pictures[path.relative_to(FOLDER).as_posix()] = image
    return pictures
