import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

import vez.demo
from images.drawn import recompressed, scenery, texture
from images.photographs import FOLDER, needs_photographs, photographs
from vez.config import PICTURE_CHECKS, Checks
from vez.errors import DataError
from vez.images.checks import Picture, check, from_row, measure, to_row
from vez.images.decode import decode
from vez.images.findings import Finding
from vez.images.pixels import pixels_sha256
from vez.images.provenance import Provenance

DEMO = Path(vez.demo.__file__).parent / "project" / "images"


def measured(*images: Image.Image, resolution: int = 128) -> list[Picture]:
    return [measure(f"{i}.png", image, resolution=resolution) for i, image in enumerate(images)]


def findings(*images: Image.Image, resolution: int = 128, **thresholds: float) -> list[Finding]:
    return check(measured(*images, resolution=resolution), resolution=resolution, thresholds=Checks(**thresholds))


def names(*images: Image.Image, **options: object) -> list[tuple[str, str]]:
    return [(f.file, f.check) for f in findings(*images, **options)]  # type: ignore[arg-type]


def test_a_good_picture_has_no_finding() -> None:
    assert findings(texture()) == []


@pytest.mark.parametrize(("resolution", "tiny"), [(128, False), (160, False), (168, True), (512, True)])
def test_tiny_is_relative_to_the_resolution(resolution: int, tiny: bool) -> None:
    found = findings(texture(), resolution=resolution)
    assert [(f.check, f.level) for f in found] == ([("tiny", "error")] if tiny else [])


def test_what_cannot_be_read_is_one_finding() -> None:
    found = check([Picture("a.jpg", error="it is damaged")], resolution=128, thresholds=Checks())
    assert [(f.file, f.check, f.value, f.level) for f in found] == [("a.jpg", "unreadable", "it is damaged", "error")]


@pytest.mark.parametrize("sigma", [2.5, 5])
def test_blurred(sigma: float) -> None:
    assert names(texture().filter(ImageFilter.GaussianBlur(sigma))) == [("0.png", "blurred")]


def test_a_sharp_subject_before_a_soft_background_is_sharp() -> None:
    soft = texture().filter(ImageFilter.GaussianBlur(5))
    soft.paste(texture().crop((40, 40, 140, 140)), (40, 40))
    assert names(soft) == []


def test_an_empty_picture_shows_nothing() -> None:
    assert names(Image.new("RGB", (160, 160), "grey")) == [("0.png", "low-information")]
    assert names(Image.new("RGB", (160, 160), "grey"), information=0) == [("0.png", "blurred")]


def test_dark_and_light() -> None:
    dark = ImageEnhance.Brightness(texture()).enhance(0.2)
    light = Image.eval(dark, lambda value: 255 - value)
    assert names(dark) == [("0.png", "dark")] and names(light) == [("0.png", "light")]


def test_odd_aspect() -> None:
    assert names(texture(width=480)) == [("0.png", "odd-aspect")]
    assert names(texture(width=480), aspect=3.0) == []


def test_an_enlarged_picture_is_found_where_its_size_matters() -> None:
    assert names(scenery(), resolution=200) == []
    large = scenery().resize((400, 400), Image.Resampling.LANCZOS)
    assert names(large, resolution=384) == [("0.png", "upscaled")]
    assert names(large, resolution=200) == []  # half of its size is enough
    assert names(large, resolution=384, upscaled=1.0) == []


def test_lettering_is_found() -> None:
    image = texture(width=500, height=400).filter(ImageFilter.GaussianBlur(1))
    draw = ImageDraw.Draw(image)
    draw.text((40, 350), "www.example.com", font=ImageFont.load_default(30), stroke_width=3, stroke_fill="black")
    assert names(image) == [("0.png", "text")]
    assert names(image, text=0.5) == []


def test_what_the_file_says_of_itself() -> None:
    picture = measure("a.png", texture(), resolution=128, transparent=True, places=True)
    found = check([picture], resolution=128, thresholds=Checks())
    assert [(f.check, f.level) for f in found] == [("transparent", "warning"), ("place", "info")]
    found = check([picture], resolution=128, thresholds=Checks(), background_said=True)
    assert [f.check for f in found] == ["place"]


def test_exact_duplicates_name_the_earlier_file() -> None:
    found = findings(texture(), texture(1), texture())
    assert [(f.file, f.check, f.other, f.level) for f in found] == [("2.png", "exact-duplicate", "0.png", "error")]


def test_the_exact_mirror_image_is_an_exact_duplicate() -> None:
    (found,) = findings(texture(), ImageOps.mirror(texture()))
    assert (found.file, found.check, found.other) == ("1.png", "exact-duplicate", "0.png")
    assert "mirror" in found.why


def test_the_same_pixels_in_another_shape_are_no_duplicate() -> None:
    assert pixels_sha256(Image.new("RGB", (2, 8))) != pixels_sha256(Image.new("RGB", (8, 2)))


def test_many_copies_of_one_picture_give_a_bounded_number_of_findings() -> None:
    one = measure("0.png", texture(), resolution=128)
    found = check([replace(one, file=f"{i}.png") for i in range(40)], resolution=128, thresholds=Checks())
    assert {f.check for f in found} == {"exact-duplicate"} and len(found) <= 8 * 40
    assert {f.file for f in found} == {f"{i}.png" for i in range(1, 40)}


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def mirrored(image: Image.Image) -> Image.Image:
    return recompressed(ImageOps.mirror(image))


def moved(image: Image.Image) -> Image.Image:
    return recompressed(image.crop((image.width // 5, 0, image.width, image.height)))


@pytest.mark.parametrize("change", [recompressed, halved, mirrored, moved])
def test_near_duplicates(change: object) -> None:
    smooth = texture().filter(ImageFilter.GaussianBlur(2))
    found = findings(smooth, change(smooth), resolution=64)  # type: ignore[operator]
    (near,) = (f for f in found if f.check == "near-duplicate")
    assert (near.file, near.other) == ("1.png", "0.png")
    assert ("mirrored" in near.why) == (change is mirrored)
    assert ("moved or cropped" in near.why) == (change is moved)


def test_of_a_bad_copy_and_a_good_one_the_bad_one_has_the_findings_whatever_their_order() -> None:
    good = texture()
    for pictures, bad in (((good, halved(good)), "1.png"), ((halved(good), good), "0.png")):
        found = findings(*pictures)
        assert [(f.file, f.check, f.level) for f in found] == [(bad, "tiny", "error"), (bad, "near-duplicate", "info")]


def test_pictures_of_one_page_or_one_original_are_one_source() -> None:
    records = [
        Provenance("0.png", page="https://Example.org/photo/1"),
        Provenance("1.png", page="http://example.org/photo/1/#details", original_sha256="ab"),
        Provenance("2.png", page="https://example.org/photo/2", original_sha256="AB"),
        Provenance("3.png", page="", original_sha256=""),
        Provenance("4.png"),
    ]
    pictures = measured(*(texture(i) for i in range(5)))
    found = check(pictures, resolution=128, thresholds=Checks(), provenance={r.file: r for r in records})
    assert [(f.file, f.check, f.other, f.level) for f in found] == [
        ("1.png", "same-source", "0.png", "warning"),
        ("2.png", "same-source", "1.png", "warning"),
    ]


def test_copies_of_one_page_are_named_once() -> None:
    pictures = measured(texture(), recompressed(texture(), 90))
    records = {p.file: Provenance(p.file, page="https://example.org/1") for p in pictures}
    assert [f.check for f in check(pictures, resolution=128, thresholds=Checks(), provenance=records)] == [
        "near-duplicate"
    ]


def test_scenes_are_compared_by_the_vectors_given() -> None:
    pictures = [*measured(texture(), texture(1)), Picture("broken.jpg", error="no"), *measured(texture(2))]
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0.96, 0.28]], dtype=np.float32)
    found = check(pictures, resolution=128, thresholds=Checks(), features=vectors)
    assert [(f.file, f.check, f.other, f.level) for f in found if f.check != "unreadable"] == [
        ("0.png", "same-scene", "0.png", "info")
    ]
    assert len(check(pictures, resolution=128, thresholds=Checks(same_scene=0.99), features=vectors)) == 1
    with pytest.raises(ValueError, match="3 feature vectors for 4"):
        check(pictures, resolution=128, thresholds=Checks(), features=vectors[:3])


def test_every_finding_says_why_and_what_to_do() -> None:
    found = findings(Image.new("RGB", (50, 200)), Image.new("RGB", (50, 200)))
    assert {f.check for f in found} == {"tiny", "low-information", "dark", "odd-aspect", "exact-duplicate"}
    assert all(f.why and f.fix and "\n" not in f.fix and f.check in PICTURE_CHECKS for f in found)


def test_a_picture_survives_a_process_and_a_file() -> None:
    for picture in (measure("a.png", texture(), resolution=128, places=True), Picture("b.png", error="broken")):
        assert pickle.loads(pickle.dumps(picture)) == picture
        assert from_row(json.loads(json.dumps(to_row(picture)))) == picture
    assert len(pickle.dumps(measure("a.png", texture(width=900, height=700), resolution=512))) < 20_000


@pytest.mark.parametrize(
    "damage",
    [{"look": {}}, {"look": {"bits": "A"}}, {"look": 3}, {"colour": 1}, {"look": {"grey_width": 0}}, {"look": None}],
)
def test_a_row_that_is_no_picture_is_refused(damage: dict[str, object]) -> None:
    row = to_row(measure("a.png", texture(), resolution=128))
    if isinstance(damage.get("look"), dict) and damage["look"]:
        damage = {"look": row["look"] | damage["look"]}
    if damage == {"look": None}:
        del row["look"]
        damage = {}
    with pytest.raises(DataError, match="measure it again"):
        from_row(row | damage)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_demo_project_has_its_bad_pictures_found_for_the_right_reasons(version: str) -> None:
    files = sorted(
        (p for p in (DEMO / version).iterdir() if p.suffix in (".jpg", ".png")), key=lambda p: "found" in p.name
    )
    pictures = [measure(path.stem, decode(path), resolution=128) for path in files]
    found = check(pictures, resolution=128, thresholds=Checks())
    assert sorted((f.file, f.check, f.other) for f in found if f.level != "info") == [
        ("found-blurred-1", "blurred", ""),
        ("found-blurred-4", "blurred", ""),
        ("found-mirrored-0", "near-duplicate", "nosnja-00"),
        ("found-mirrored-6", "near-duplicate", "nosnja-06"),
        ("found-small-2", "tiny", ""),
        ("found-small-7", "tiny", ""),
    ]
    # the blurred and the tiny ones are copies, too: for the held-out split
    assert sorted((f.file, f.other) for f in found if f.level == "info") == [
        ("found-blurred-1", "nosnja-01"),
        ("found-blurred-4", "nosnja-04"),
        ("found-small-2", "nosnja-02"),
        ("found-small-7", "nosnja-07"),
    ]


def documented_sources() -> dict[str, Provenance]:
    """What references_and_licenses.txt of google/dreambooth says of each photograph."""
    records, subject = {}, ""
    for line in (FOLDER / "references_and_licenses.txt").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.isdigit() and value.strip().startswith("https"):
            file = f"{subject}/{name}.jpg"
            records[file] = Provenance(file, page=value.strip())
        elif name and not name.startswith("("):
            subject = name.strip()
    return records


@needs_photographs
def test_all_photographs_have_their_documented_copies_found_and_nothing_else() -> None:
    files = {p.relative_to(FOLDER).as_posix(): p for p in sorted(FOLDER.glob("*/*.jpg"))}
    pictures = [measure(name, decode(path), resolution=512) for name, path in files.items()]
    found = check(pictures, resolution=512, thresholds=Checks(), provenance=documented_sources())
    assert len(files) == 48
    assert [(f.file, f.check, f.other) for f in found] == [
        ("cat/02.jpg", "same-source", "cat/01.jpg"),
        ("cat/03.jpg", "near-duplicate", "cat/02.jpg"),
        ("dog/04.jpg", "same-source", "dog/03.jpg"),
        ("dog5/03.jpg", "near-duplicate", "dog5/02.jpg"),
    ]


@needs_photographs
@pytest.mark.parametrize("resolution", [128, 512])
def test_real_photographs_have_their_hidden_duplicates_and_no_false_alarm(resolution: int) -> None:
    pictures = [measure(file, image, resolution=resolution) for file, image in photographs().items()]
    found = check(pictures, resolution=resolution, thresholds=Checks())
    # tiny is a matter of how the test shrinks them
    assert [(f.file, f.check, f.other) for f in found if f.check != "tiny"] == [
        ("cat/03.jpg", "near-duplicate", "cat/02.jpg"),
        ("dog5/03.jpg", "near-duplicate", "dog5/02.jpg"),
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
        copies = measured(image, *(change(image) for change in (recompressed, halved, mirrored)), resolution=64)
        found = {(f.file, f.other) for f in check(copies, resolution=64, thresholds=Checks())}
        missed += [(file, copy.file) for copy in copies[1:] if (copy.file, "0.png") not in found]
    assert not missed
