"""Pictures drawn for the tests of the checks."""

import io

import numpy as np
from PIL import Image


def texture(seed: int = 0, width: int = 160, height: int = 160) -> Image.Image:
    """Coarse shapes with sharp edges, and fine grain: something to be sharp about."""
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.NEAREST
    )
    grain = random.integers(-12, 13, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(shapes, int) + grain, 0, 255).astype(np.uint8))


def scenery(seed: int = 0, side: int = 200) -> Image.Image:
    """Noise whose spectrum falls as a photograph's does."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(np.random.default_rng(seed).normal(size=(side, side))) / frequency**1.2
    grey = np.fft.ifft2(spectrum).real
    return Image.fromarray(np.clip(128 + 40 * grey / grey.std(), 0, 255).astype(np.uint8)).convert("RGB")


def recompressed(image: Image.Image, quality: int = 60) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
