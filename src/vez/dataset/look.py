"""Looking at the pictures: decode, measure, cut; in threads, a few pictures in memory at a time.

What was looked at is written down as it comes (``looked.jsonl`` in the folder under way), so that a build that was cut
does not look again.
"""

import hashlib
import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from PIL import Image

from vez.config import CropName
from vez.config import Dataset as Recipe
from vez.dataset.moved import cut_elsewhere, is_whole
from vez.dataset.rows import Moved, read_moved
from vez.errors import DataError, StoreError
from vez.events import Event, Item
from vez.images import buckets, masks
from vez.images.checks import Picture, from_row, measure, to_row
from vez.images.crop import Box, Cut, apply, apply_to_mask, plan_cuts
from vez.images.decode import Decoded, read_picture
from vez.images.faces import finder
from vez.images.findings import Finding
from vez.images.pixels import pixels_sha256

LOG: Final = "looked.jsonl"
_AHEAD: Final = 2  # pictures per worker that are waiting or under way
_SEEN: Final = 1.05  # an enlargement by less than this is said nowhere: rounding to a shape's sides alone makes as much
_COMPRESSION: Final = 1  # of the training pictures' PNG: 6 is four times slower for a tenth of the bytes


Faces = Callable[[Image.Image], Sequence[Box]]


@dataclass(frozen=True)
class Made:
    """One training picture that was cut: its file, its pixels' SHA-256, its cut, the file of its mask or "", and the
    same cut at other places."""

    file: str
    sha256: str
    cut: Cut
    mask: str = ""
    moved: tuple[Moved, ...] = ()


@dataclass(frozen=True)
class Looked:
    """One of the person's pictures: what the checks need to know of it, and the training pictures made of it."""

    picture: Picture
    made: tuple[Made, ...] = ()


@dataclass(frozen=True)
class Look:
    """How to look: the dataset's recipe, the project's folder, the boxes by hand, and where training pictures go.

    Without ``into`` nothing is cut. ``names`` are the training pictures' by (file, crop).
    """

    recipe: Recipe
    root: Path
    by_hand: Mapping[str, Mapping[CropName, Box]]
    into: Path | None = None
    names: Mapping[tuple[str, CropName], str] | None = None
    find_faces: Faces | None = None

    @property
    def folder(self) -> Path:
        """Where the person's pictures lie."""
        return self.root / self.recipe.images


def faces_of(recipe: Recipe, root: Path) -> Faces | None:
    """What finds faces for a recipe's crops; None where it asks for none. Raises MissingExtra, BaseModelError."""
    if recipe.faces is None:
        return None
    return finder(None if recipe.faces == "cascade" else root / recipe.faces)


def look(how: Look, sources: Mapping[str, str]) -> Generator[Event, None, list[Looked]]:
    """Look at every picture of ``sources`` (file → SHA-256), in their order.

    Raises DataError where a picture changes while it is read, or where a box or a mask by hand does not fit its
    picture, and StoreError where a training picture cannot be written; a picture that cannot be decoded is one with an
    ``error``.
    """
    known = {} if how.into is None else _read_log(how.into, sources)
    seen: list[Looked] = []
    todo = [(file, sha256) for file, sha256 in sources.items() if file not in known]
    with closing(_in_order(partial(_one, how), todo)) as found:
        for done, file in enumerate(sources, start=1):
            if file in known:
                seen.append(known[file])
            else:
                seen.append(next(found))
                if how.into is not None:
                    _log(how.into, seen[-1])
            yield Item("check", done, len(sources))
    return seen


def cuts_of(
    recipe: Recipe,
    image: Image.Image,
    by_hand: Mapping[CropName, Box],
    *,
    file: str,
    subject: Image.Image | None = None,
    faces: Sequence[Box] = (),
) -> list[Cut]:
    """How a recipe cuts an upright picture; ``faces`` are what `faces_of` the recipe finds in it. Raises DataError,
    naming the file, for a box by hand that does not fit."""
    return plan_cuts(
        image,
        shapes=buckets.shapes(recipe.buckets, recipe.resolution),
        crops=recipe.crops,
        by_hand=by_hand,
        faces=faces,
        subject=subject,
        file=file,
    )


def planned(how: Look, file: str) -> tuple[Image.Image, list[Cut]] | str:
    """One of the person's pictures, upright, and how it would be cut; a text that says why, where it cannot be read.
    Raises DataError where a box or a mask by hand does not fit it."""
    try:
        decoded = read_picture(how.folder / file, background=how.recipe.background or "white")
    except DataError as error:
        return str(error)
    return decoded.image, _plan(how, file, decoded).cuts


def enlarged(looked: Sequence[Looked], resolution: int) -> list[Finding]:
    """A finding for each training picture that is larger than what it was cut from, by a box drawn by hand or by its
    shape; not for pictures that are too small as a whole, which `vez.images.checks` finds."""
    found = []
    for one in looked:
        if min(one.picture.width, one.picture.height) < resolution:
            continue
        for made in one.made:
            left, top, right, bottom = made.cut.box
            scale = max(made.cut.size[0] / (right - left), made.cut.size[1] / (bottom - top))
            if scale > _SEEN:
                who = "a box in boxes.toml" if made.cut.boxed == "hand" else "its shape"
                what = f"{made.cut.crop}, {right - left} × {bottom - top} pixels"
                why = f"this crop is enlarged {scale:.1f} times, because of {who}, and teaches softness"
                fix = "draw a larger box, find a larger copy, or lower the dataset's resolution"
                found.append(
                    Finding(one.picture.file, "tiny", what, f"{made.cut.size[0]} × {made.cut.size[1]}", why, fix)
                )
    return found


def training_names(files: Sequence[str], crops: Sequence[CropName] = ("full",)) -> dict[tuple[str, CropName], str]:
    """(file, crop) → <stem>.png or <stem>.<crop>.png, all different even where letter case is ignored.

    a.jpg beside a.png becomes a-jpg.png.
    """
    stems = [Path(file).stem.lower() for file in files]
    names: dict[tuple[str, CropName], str] = {}
    taken: set[str] = set()
    # those whose stem is theirs alone come first, so that no other file's makeshift name takes it
    for file in sorted(files, key=lambda f: stems.count(Path(f).stem.lower()) > 1):
        path = Path(file)
        stem = path.stem if stems.count(path.stem.lower()) == 1 else f"{path.stem}-{path.suffix[1:]}"
        endings = {crop: ".png" if crop == "full" else f".{crop}.png" for crop in crops}
        while any(f"{stem}{ending}".lower() in taken for ending in endings.values()):
            stem += "-"
        for crop, ending in endings.items():
            names[file, crop] = f"{stem}{ending}"
            taken.add(f"{stem}{ending}".lower())
    return names


def _in_order(work: Any, todo: Sequence[tuple[str, str]]) -> Generator[Looked, None, None]:
    """Results in the order of ``todo``. Threads: Pillow's and numpy's work leaves the interpreter free for others."""
    # the cores that this process may use, where the system can say (macOS and Windows cannot)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    waiting: deque[Future[Looked]] = deque()
    # Decoding passes over Pillow's remarks by changing the filters of the whole process and putting them back, which
    # threads would do to one another out of turn: here what they put back is always "ignore", and the filters as they
    # were come back once all have ended.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(workers or 1) as pool:
        try:
            for file, sha256 in todo:
                waiting.append(pool.submit(work, file, sha256))
                if len(waiting) > _AHEAD * (workers or 1):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one(how: Look, file: str, sha256: str) -> Looked:
    path = how.folder / file
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; build again") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{path} changed while it was being read; build again")
    try:
        decoded = read_picture(data, background=how.recipe.background or "white")
    except DataError as error:
        return Looked(Picture(file, error=str(error)))
    picture = measure(
        file,
        decoded.image,
        resolution=how.recipe.resolution,
        transparent=decoded.alpha is not None,
        places=decoded.places,
    )
    return Looked(picture, _cut(how, file, sha256, decoded) if how.into is not None else ())


@dataclass(frozen=True)
class _Plan:
    """The cuts of a picture, the mask that goes along with it, and the faces in it."""

    cuts: list[Cut]
    subject: Image.Image | None
    faces: Sequence[Box]


def _plan(how: Look, file: str, decoded: Decoded) -> _Plan:
    recipe, image = how.recipe, decoded.image
    subject = masks.find(file, masks=recipe.masks, root=how.root, alpha=decoded.alpha, size=image.size)
    boxes = how.by_hand.get(file, {})
    faces = how.find_faces(image) if how.find_faces is not None else ()
    return _Plan(cuts_of(recipe, image, boxes, file=file, subject=subject, faces=faces), subject, faces)


def _cut(how: Look, file: str, sha256: str, decoded: Decoded) -> tuple[Made, ...]:
    into, names = how.into, how.names
    assert into is not None and names is not None
    plan, save = _plan(how, file, decoded), partial(_save, into)
    made = []
    for cut in plan.cuts:
        name = names[file, cut.crop]
        image = apply(decoded.image, cut)
        save(image, f"images/{name}")
        mask = ""
        if plan.subject is not None:
            mask = f"masks/{name}"
            save(apply_to_mask(plan.subject, cut), mask)
        about: dict[str, Any] = {"seed": sha256, "faces": plan.faces, "subject": plan.subject}
        moved = cut_elsewhere(how.recipe, decoded.image, cut, name, save, **about)
        made.append(Made(f"images/{name}", pixels_sha256(image), cut, mask, moved))
    return tuple(made)


def _save(into: Path, image: Image.Image, file: str) -> None:
    # not write_atomic: what is torn by a kill is not in the log, and is made again
    with _writing(into / file):
        image.save(into / file, format="PNG", compress_level=_COMPRESSION)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _log(into: Path, looked: Looked) -> None:
    row = {"picture": to_row(looked.picture), "made": [_made_row(made) for made in looked.made]}
    with _writing(into / LOG), open(into / LOG, "a", encoding="ascii") as log:
        log.write(json.dumps(row) + "\n")


def _made_row(made: Made) -> dict[str, Any]:
    cut = made.cut
    return {
        "file": made.file,
        "sha256": made.sha256,
        "mask": made.mask,
        "cut": {"crop": cut.crop, "box": cut.box, "boxed": cut.boxed, "size": cut.size},
        "moved": [asdict(one) for one in made.moved],
    }


def _read_log(into: Path, sources: Mapping[str, str]) -> dict[str, Looked]:
    """What a cut build looked at already. A line may be torn, and then that picture is looked at again."""
    known: dict[str, Looked] = {}
    try:
        lines = (into / LOG).read_text(encoding="ascii", errors="replace").split("\n")
    except FileNotFoundError:
        return known
    whole = []
    for line in lines[:-1]:  # after the last line's end stands nothing, or a torn line
        looked = _from_line(into, line)
        if looked is not None and looked.picture.file in sources:
            known[looked.picture.file] = looked
            whole.append(line)
    with _writing(into / LOG):
        (into / LOG).write_text("".join(f"{line}\n" for line in whole), encoding="ascii")
    return known


def _from_line(into: Path, line: str) -> Looked | None:
    """What a line of the log says; None for one that a crash left broken, or whose training pictures are not there."""
    try:
        row = json.loads(line)
        made = [_made(into, part) for part in row["made"]]
        picture = from_row(row["picture"])
    except (ValueError, KeyError, TypeError, DataError):
        return None
    whole = tuple(one for one in made if one is not None)
    return Looked(picture, whole) if len(whole) == len(made) else None


def _made(into: Path, row: Mapping[str, Any]) -> Made | None:
    """A training picture that the log names, if it is there whole, and at all its other places too."""
    cut = Cut(row["cut"]["crop"], tuple(row["cut"]["box"]), row["cut"]["boxed"], tuple(row["cut"]["size"]))
    made = Made(row["file"], row["sha256"], cut, row["mask"], tuple(read_moved(one) for one in row.get("moved", ())))
    all_of: list[Made | Moved] = [made, *made.moved]
    return made if all(is_whole(into, one.file, one.sha256, one.mask) for one in all_of) else None
