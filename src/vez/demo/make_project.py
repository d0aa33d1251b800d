"""Draw the demo project's pictures as a person would find them: `python -m vez.demo.make_project`.

Different sizes and shapes, JPEG and PNG, some turned by EXIF; version 1 with bad ones among them, version 2 with 34
good ones and the bad ones that its build throws out. Hand captions of version 2 are written beside them, and for each
version who made the pictures and under which licence.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from vez.demo.world.scene import Scene, draw, random_scene
from vez.demo.world.words import PLACE_WORDS, POSE_WORDS, STYLE_WORDS, VIEW_WORDS, WEATHER_WORDS
from vez.images import provenance
from vez.images.provenance import Provenance
from vez.store import file_sha256

HERE = Path(__file__).parent / "project"
VIEWS = {"full": 13, "upper": 8, "seated": 5, "lower": 3, "mannequin": 3, "doll": 2}
SHAPES = ((384, 512), (512, 384), (420, 420), (360, 500), (540, 384), (480, 480))
V1 = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 14, 16, 17, 18, 19)
"""The good pictures that version 1 has already: none of the four that version 2's build holds out (9, 13, 21, 28), so
that the same four judge every LoRA."""
ORIENTATION = 0x0112
TURNED = 6
"""EXIF orientation of a camera held upright: the stored picture must be turned a quarter clockwise."""


def good_scenes() -> list[Scene]:
    """34 scenes of the costume in the views of the reference study."""
    rng = random.Random(2026)
    scenes = [random_scene(rng, view=view, costume=True) for view, count in VIEWS.items() for _ in range(count)]
    rng.shuffle(scenes)
    return scenes


def hand_caption(scene: Scene, rng: random.Random) -> str:
    """What a careful person writes: who, the trigger for the costume, pose, place with its details, weather."""
    who = scene.person
    words = f"a {who.kind}"
    if who.alive and scene.view != "lower":
        words += f" with {STYLE_WORDS[who.style].format(who.hair)}" + (" and glasses" if who.glasses else "")
    words += " wearing traditional nosnjaoutfit" + (f" and a {who.hat}" if who.hat and scene.view != "lower" else "")
    if scene.view in VIEW_WORDS:
        words = VIEW_WORDS[scene.view][0].format(words)
    elif who.alive:
        words += f" {POSE_WORDS[scene.pose][0]}"
    tail = [rng.choice(PLACE_WORDS[scene.place]), WEATHER_WORDS[scene.weather][0]]
    return ", ".join(part for part in ("nosnjaoutfit", words, *tail) if part)


def picture(scene: Scene, number: int) -> Image.Image:
    """The scene at one of the found shapes."""
    shape = SHAPES[number % len(SHAPES)]
    return Image.fromarray(draw(scene, seed=90_000 + number, size=shape, fine=2)[0])


def save(image: Image.Image, path: Path, *, turned: bool = False) -> None:
    """Write JPEG or PNG by the suffix; `turned` stores it lying on its side with the EXIF mark to turn it back."""
    exif = Image.Exif()
    if turned:
        exif[ORIENTATION] = TURNED
        image = image.transpose(Image.Transpose.ROTATE_90)
    if path.suffix == ".jpg":
        image.save(path, quality=90, exif=exif)
    else:
        image.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def bad_pictures(good: list[Scene]) -> dict[str, Image.Image]:
    """What a search also brings: blurred, tiny, mirrored copies and other subjects."""
    rng = random.Random(7)
    plain = [replace(random_scene(rng, view=v)) for v in ("full", "upper")]
    found = {f"found-blurred-{i}": picture(good[i], i).filter(ImageFilter.GaussianBlur(9)) for i in (1, 4)}
    found |= {f"found-small-{i}": picture(good[i], i).resize((84, 84)) for i in (2, 7)}
    found |= {f"found-mirrored-{i}": ImageOps.mirror(picture(good[i], i)) for i in (0, 6)}
    found |= {f"found-other-{i}": picture(scene, 50 + i) for i, scene in enumerate(plain)}
    return found


def record(path: Path) -> Provenance:
    """Where a drawn picture comes from."""
    return Provenance(
        path.name,
        sha256=file_sha256(path),
        origin="drawn by python -m vez.demo.make_project",
        author="the vez project",
        licence="Apache-2.0",
        licence_url="https://www.apache.org/licenses/LICENSE-2.0",
        people="none",
    )


def main() -> None:
    """Write images/v1, images/v2 and captions/v2 anew."""
    for name in ("images", "captions"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    v1, v2, words = HERE / "images" / "v1", HERE / "images" / "v2", HERE / "captions" / "v2"
    for folder in (v1, v2, words):
        folder.mkdir(parents=True)
    good, rng = good_scenes(), random.Random(11)
    for i, scene in enumerate(good):
        name = f"nosnja-{i:02d}" + (".png" if i % 6 == 3 else ".jpg")
        for folder in (v1, v2) if i in V1 else (v2,):
            save(picture(scene, i), folder / name, turned=i % 7 == 2 and name.endswith("jpg"))
        (words / f"nosnja-{i:02d}.txt").write_text(hand_caption(scene, rng) + "\n")
    for name, image in bad_pictures(good).items():
        save(image, v1 / f"{name}.jpg")
        save(image, v2 / f"{name}.jpg")
    for folder in (v1, v2):
        provenance.write(folder, map(record, sorted(p for p in folder.iterdir() if p.suffix != ".jsonl")))
    total = sum(p.stat().st_size for p in HERE.rglob("*") if p.is_file())
    print(f"{len(list(v1.iterdir()))} pictures in v1, {len(list(v2.iterdir()))} in v2, {total / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
