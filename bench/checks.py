"""How fast pictures are measured and compared: `vez.images.checks`, on pictures drawn here.

    python bench/checks.py [--pictures 2000] [--measured 24]

Measuring is timed on pictures of about one megapixel, beside Pillow's bare decoding of the same JPEG bytes. Comparing
is timed on as many small pictures as asked for (clouds of random colours, every fiftieth followed by a copy that is
cropped, mirrored, resized, brightened and compressed); it says how many of those copies were found, and how many other
pairs. Seconds are those of the processor, in one process; set OMP_NUM_THREADS=1, or the threads of BLAS count too.
"""

import argparse
import io
import platform
import resource
import time

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vez.config import Checks
from vez.images import duplicates, shifts
from vez.images.checks import Picture, check, measure


def cloud(seed: int, side: int = 128) -> Image.Image:
    """Noise whose spectrum falls as a photograph's does, in three random colours; some wide, some tall."""
    random = np.random.default_rng(seed)
    width, height = ((side, side), (side * 4 // 3, side), (side, side * 3 // 2))[seed % 3]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    frequency[0, 0] = 1
    spectra = np.fft.fft2(random.normal(size=(3, height, width))) / frequency ** random.uniform(0.9, 1.5)
    planes = np.fft.ifft2(spectra).real
    planes /= planes.std(axis=(1, 2), keepdims=True)
    mixed = np.einsum("ij,jyx->yxi", random.normal(size=(3, 3)) * random.uniform(15, 40), planes)
    return Image.fromarray(np.clip(mixed + random.uniform(50, 205, 3), 0, 255).astype(np.uint8))


def copied(image: Image.Image, seed: int) -> Image.Image:
    """A crop of three quarters or more of either side, mirrored or not, resized, brighter or darker, as JPEG q 40."""
    random = np.random.default_rng(seed)
    width, height = (side * random.uniform(0.75, 1) for side in image.size)
    left, top = (random.uniform(0, side - part) for side, part in zip(image.size, (width, height), strict=True))
    image = image.crop((int(left), int(top), int(left + width), int(top + height)))
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    factor = random.uniform(0.6, 1.5)
    image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    image = ImageEnhance.Brightness(image).enhance(random.uniform(0.9, 1.1))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file).convert("RGB")


def measuring(count: int) -> None:
    files = []
    for seed in range(count):
        file = io.BytesIO()
        cloud(seed, 900).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    start = time.process_time()
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    decoded = time.process_time()
    for image in images:
        measure("x", image, resolution=512)
    measured = time.process_time()
    pixels = sum(image.width * image.height for image in images) / 1e6
    for name, seconds in (("Pillow's decoding", decoded - start), ("measure", measured - decoded)):
        print(f"{name:18} {count / seconds:7.1f} pictures/s {1000 * seconds / pixels:7.1f} ms per megapixel")


def comparing(count: int) -> None:
    pictures: list[Picture] = []
    copies: set[tuple[str, str]] = set()
    for seed in range(count):
        original = cloud(seed, 256 if seed % 50 == 0 else 128)  # of a size that compression does not drown
        pictures.append(Picture(f"{seed}", pixels=f"{seed}", mirrored=f"-{seed}", look=duplicates.look(original)))
        if seed % 50 == 0:
            name = f"copy of {seed}"
            pictures.append(
                Picture(name, pixels=name, mirrored=f"-{name}", look=duplicates.look(copied(original, seed)))
            )
            copies.add((name, f"{seed}"))
    start = time.process_time()
    found = {(f.file, f.other) for f in check(pictures, resolution=64, thresholds=Checks()) if f.other}
    seconds = time.process_time() - start
    pairs = len(pictures) * (len(pictures) - 1) / 2
    print(f"check of {len(pictures)} pictures: {seconds:.1f} s, {pairs / seconds:,.0f} pairs/s")
    print(f"cropped copies found: {len(found & copies)} of {len(copies)}; other pairs: {len(found - copies)}")
    greys = [shifts.grey(cloud(seed)) for seed in range(60)]
    every = np.stack(np.triu_indices(len(greys), 1), axis=1)
    start = time.process_time()
    list(shifts.matches(greys, every, least=0.97))
    print(f"correlation over shifts and sizes: {len(every) / (time.process_time() - start):,.0f} pairs/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000, help="how many are compared")
    parser.add_argument("--measured", type=int, default=24, help="how many are measured")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}")
    measuring(options.measured)
    comparing(options.pictures)
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
