"""Findings about pictures, before anything is trained on them. Nothing here deletes or changes a picture.

`measure` looks at one picture (so that only one is in memory, and many processes can share the work), `check` at the
measures of all of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vez.config import Checks
from vez.errors import DataError
from vez.images.duplicates import Look, copies, look, look_from_row, look_to_row
from vez.images.findings import Finding, Level
from vez.images.lettering import lettering
from vez.images.pixels import pixels_sha256
from vez.images.provenance import Provenance
from vez.images.quality import blur, information, missing_detail, training_view

_MOST_NAMED: Final = 8  # earlier pictures that a later one is said to repeat, for each check
_ROWS: Final = 256  # pictures whose vectors are compared with all others at a time


@dataclass(frozen=True)
class Picture:
    """What the checks need to know of one picture. ``error`` is set, and the rest empty, where it cannot be read."""

    file: str
    error: str = ""
    width: int = 0
    height: int = 0
    pixels: str = ""
    """SHA-256 of the decoded pixels and their shape."""
    mirrored: str = ""
    """The same of the mirror image."""
    blur: float = 0.0
    """Blur of the sharpest part of the picture, 0 (sharp) to 1 (blurred or empty)."""
    darkest: float = 0.0
    """Brightness that 2 % of the picture stay below, 0 black to 1 white."""
    brightest: float = 1.0
    """Brightness that 2 % of the picture exceed."""
    information: float = 8.0
    """Entropy of the brightness, in bits."""
    missing: float = 0.0
    """Share of the finest detail that is missing, 0 to 1."""
    text: float = 0.0
    """Share of the area covered by lettering."""
    transparent: bool = False
    """The file says of parts of it that they are transparent."""
    places: bool = False
    """The file says where it was taken."""
    look: Look | None = None
    """What the search for copies compares."""


def measure(
    file: str, image: Image.Image, *, resolution: int, transparent: bool = False, places: bool = False
) -> Picture:
    """What the checks need to know of a decoded RGB picture, to be trained on at ``resolution`` pixels.

    ``transparent`` and ``places`` are said by the file, not by the picture: it has transparent parts; it holds GPS
    coordinates.
    """
    grey = training_view(image, resolution)
    darkest, brightest = np.quantile(grey, (0.02, 0.98))
    return Picture(
        file=file,
        width=image.width,
        height=image.height,
        pixels=pixels_sha256(image),
        mirrored=pixels_sha256(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        blur=blur(grey),
        darkest=float(darkest),
        brightest=float(brightest),
        information=information(grey),
        missing=missing_detail(image),
        text=lettering(image),
        transparent=transparent,
        places=places,
        look=look(image),
    )


def to_row(picture: Picture) -> dict[str, Any]:
    """The picture as a JSON object; bytes as base64."""
    row = asdict(replace(picture, look=None))
    return row | {"look": None if picture.look is None else look_to_row(picture.look)}


def from_row(row: dict[str, Any]) -> Picture:
    """The picture that `to_row` wrote. Raises DataError for a row that is none."""
    try:
        kept = None if row["look"] is None else look_from_row(row["look"])
        return Picture(**(row | {"look": kept}))
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"this is not the record of a measured picture ({error}); measure it again") from error


def check(
    pictures: Sequence[Picture],
    *,
    resolution: int,
    thresholds: Checks,
    provenance: Mapping[str, Provenance] | None = None,
    features: NDArray[np.float32] | None = None,
    background_said: bool = False,
) -> list[Finding]:
    """The findings about a set of pictures, in their order; of two copies the later one gets the finding.

    ``provenance`` is by file name. ``features`` are CLIP vectors of length 1, (N, D), in the order of ``pictures``
    (anything for those that cannot be read); without them nothing is said about scenes. With ``background_said`` the
    person has named what shows through transparent parts. Raises ValueError where the rows of ``features`` are not as
    many as the pictures.
    """
    if features is not None and len(features) != len(pictures):
        raise ValueError(f"{len(features)} feature vectors for {len(pictures)} pictures")
    found: list[list[Finding]] = [_alone(p, resolution, thresholds, background_said) for p in pictures]
    paired: set[tuple[int, int]] = set()
    readable = [i for i, picture in enumerate(pictures) if not picture.error]
    tiers = (  # each begins when the one before is through, and sees what that one paired
        _exact(pictures, readable),
        _near(pictures, readable, found, thresholds, paired),
        _one_source(pictures, readable, provenance or {}),
        _one_scene(pictures, readable, features, thresholds.same_scene),
    )
    for tier in tiers:
        named: dict[int, int] = {}
        said = []
        for i, j, finding in tier:
            pair = (min(i, j), max(i, j))
            if pair in paired or named.get(j, 0) >= _MOST_NAMED:
                continue
            named[j] = named.get(j, 0) + 1
            found[j].append(finding)
            said.append(pair)
        paired.update(said)  # after the tier: what one tier says is not said again by a later one
    return [finding for each in found for finding in each]


_Pairs = Iterator[tuple[int, int, Finding]]
"""(the other's place, the place of the picture that the finding is about, the finding)"""


@dataclass(frozen=True)
class _Rule:
    """A number of one picture and the limit it may not pass."""

    check: str
    value: Callable[[Picture, int], float]
    """Of a picture, to be trained on at a resolution."""
    limit: Callable[[Checks, int], float]
    most: bool
    """The limit is the most allowed; otherwise the least."""
    why: str
    fix: str
    level: Level = "warning"
    unless: frozenset[str] = frozenset()
    """Findings that say as much already."""


def _short(picture: Picture, resolution: int) -> float:
    return min(picture.width, picture.height)


def _missing_where_needed(picture: Picture, resolution: int) -> float:
    # enlarged twofold and reduced again for training, it is as good as it ever was
    return picture.missing if _short(picture, resolution) < 2 * resolution else 0.0


_RULES: Final = (
    _Rule(
        "tiny",
        _short,
        lambda limits, resolution: resolution,
        False,
        "its short side is less than the training resolution, so it would be enlarged and teaches softness",
        "find a larger copy, or lower the dataset's resolution",
        "error",
    ),
    _Rule(
        "low-information",
        lambda p, _: p.information,
        lambda limits, _: limits.information,
        False,
        "next to nothing is on it: nearly all of it is of one shade",
        "leave it out",
    ),
    _Rule(
        "blurred",
        lambda p, _: p.blur,
        lambda limits, _: limits.blurred,
        True,
        "even its sharpest part is soft; the LoRA learns blur as part of the concept",
        "use a sharper picture",
        unless=frozenset({"low-information"}),
    ),
    _Rule(
        "dark",
        lambda p, _: p.brightest,
        lambda limits, _: limits.dark,
        False,
        "it is nearly black; details of the concept cannot be seen",
        "brighten it, or leave it out",
    ),
    _Rule(
        "light",
        lambda p, _: p.darkest,
        lambda limits, _: limits.light,
        True,
        "it is nearly white; details of the concept cannot be seen",
        "darken it, or leave it out",
    ),
    _Rule(
        "upscaled",
        _missing_where_needed,
        lambda limits, _: limits.upscaled,
        True,
        "its finest detail is missing, as in a picture that was enlarged; it is smaller than its size says",
        "find the original, or lower the dataset's resolution",
        unless=frozenset({"tiny", "blurred", "low-information"}),
    ),
    _Rule(
        "text",
        lambda p, _: p.text,
        lambda limits, _: limits.text,
        True,
        "there is a caption, a logo or a watermark on it, which the LoRA learns to draw",
        "crop it away with a box in boxes.toml, or use another copy",
    ),
    _Rule(
        "odd-aspect",
        lambda p, _: max(p.width, p.height) / max(1, min(p.width, p.height)),
        lambda limits, _: limits.aspect,
        True,
        "a square crop loses most of it",
        "crop it by hand around the subject",
    ),
)


def _alone(picture: Picture, resolution: int, limits: Checks, background_said: bool) -> list[Finding]:
    if picture.error:
        fix = "save it again as JPEG or PNG, or remove it"
        return [Finding(picture.file, "unreadable", picture.error, "", "it cannot be trained on", fix, level="error")]
    findings: list[Finding] = []
    for rule in _RULES:
        value, limit = rule.value(picture, resolution), rule.limit(limits, resolution)
        passed = value > limit if rule.most else value < limit
        if passed and rule.unless.isdisjoint(finding.check for finding in findings):
            shown = round(value, 3)
            findings.append(Finding(picture.file, rule.check, shown, limit, rule.why, rule.fix, level=rule.level))
    if picture.transparent and not background_said:
        why = "parts of it are transparent, and no background is named; white shows through, which the LoRA may learn"
        fix = 'say background = "white", "black" or "grey" for the dataset'
        findings.append(Finding(picture.file, "transparent", "", "", why, fix))
    if picture.places:
        why = "the file says where it was taken; vez leaves that out of all that it writes"
        fix = "strip the place from your file before you give it to others"
        findings.append(Finding(picture.file, "place", "", "", why, fix, level="info"))
    return findings


def _exact(pictures: Sequence[Picture], readable: Sequence[int]) -> _Pairs:
    """The same pixels, or their mirror image."""
    places: dict[str, list[int]] = {}
    for j in readable:
        picture = pictures[j]
        for pixels, how in ((picture.pixels, "the same pixels as"), (picture.mirrored, "the exact mirror image of")):
            for i in places.get(pixels, ())[:_MOST_NAMED]:
                why = f"it shows {how} {pictures[i].file}, which then counts twice"
                fix = "remove one of the two"
                yield (
                    i,
                    j,
                    Finding(picture.file, "exact-duplicate", 0.0, 0.0, why, fix, other=pictures[i].file, level="error"),
                )
            if picture.pixels == picture.mirrored:
                break
        places.setdefault(picture.pixels, []).append(j)


def _near(
    pictures: Sequence[Picture],
    readable: Sequence[int],
    found: Sequence[Sequence[Finding]],
    limits: Checks,
    exact: set[tuple[int, int]],
) -> _Pairs:
    """Copies by the look of them. Where just one of the two is too small or blurred, it is the one, and that finding
    already tells the person to leave it out: then this is for information (and for the held-out split)."""
    repeated = {j for _, j in exact}
    looks = [(i, kept) for i in readable if i not in repeated and (kept := pictures[i].look) is not None]
    bad = {i for i, _ in looks if any(f.check in ("tiny", "blurred") for f in found[i])}
    for copy in copies([kept for _, kept in looks], most_bits=limits.near_duplicate, least_correlation=limits.shifted):
        i, j = looks[copy.earlier][0], looks[copy.later][0]
        if i in bad and j not in bad:
            i, j = j, i
        how = ", mirrored" * copy.mirrored + ", moved or cropped" * (not copy.whole)
        why = f"it is nearly the same picture as {pictures[i].file}{how}; copies are what a LoRA memorises first"
        limit = limits.near_duplicate if copy.whole else limits.shifted
        level: Level = "info" if j in bad and i not in bad else "warning"
        value = round(copy.value, 3)
        fix = "keep the better one"
        yield (
            i,
            j,
            Finding(pictures[j].file, "near-duplicate", value, limit, why, fix, other=pictures[i].file, level=level),
        )


def _one_source(pictures: Sequence[Picture], readable: Sequence[int], known: Mapping[str, Provenance]) -> _Pairs:
    """What the records of where they come from say: one page, or one original file."""
    places: dict[tuple[str, str], list[int]] = {}
    for j in readable:
        record = known.get(pictures[j].file)
        if record is None:
            continue
        for what, key in (("original", record.original_sha256.lower()), ("page", _address(record.page))):
            if not key:
                continue
            for i in places.get((what, key), ())[:_MOST_NAMED]:
                shown = record.page if what == "page" else record.original_sha256[:12]
                why = f"it comes from the same {what} as {pictures[i].file}: two views of one photograph count twice"
                fix = "keep the better one, or waive it if they are different photographs"
                yield (
                    i,
                    j,
                    Finding(pictures[j].file, "same-source", shown, "", why, fix, other=pictures[i].file),
                )
            places.setdefault((what, key), []).append(j)


def _address(page: str) -> str:
    """An address without what does not change the page: letter case of the host, http or https, a fragment."""
    try:
        parts = urlsplit(page.strip())
    except ValueError:
        return page.strip()
    return f"{parts.netloc.lower()}{parts.path.rstrip('/')}?{parts.query}" if parts.netloc else page.strip()


def _one_scene(
    pictures: Sequence[Picture], readable: Sequence[int], features: NDArray[np.float32] | None, least: float
) -> _Pairs:
    """Pictures that CLIP takes for the same."""
    if features is None or len(readable) < 2:
        return
    vectors = features[list(readable)]
    for start in range(0, len(vectors), _ROWS):
        likeness = vectors[start : start + _ROWS] @ vectors.T  # (rows, N)
        for row, i in np.argwhere(likeness >= least).tolist():
            if i < start + row:
                earlier, later = pictures[readable[i]], pictures[readable[start + row]]
                why = f"it shows the same scene as {earlier.file}; the set is less varied than it is large"
                value = round(float(likeness[row, i]), 3)
                fix = "prefer pictures of other places and poses"
                yield (
                    readable[i],
                    readable[start + row],
                    Finding(later.file, "same-scene", value, least, why, fix, other=earlier.file, level="info"),
                )
