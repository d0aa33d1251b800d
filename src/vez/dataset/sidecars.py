"""Pictures with captions in files beside them, read as kohya's scripts read them, with what those keep quiet about.

What kohya does (library/train_util.py, DreamBoothDataset): the caption of ``a.png`` is ``a`` + caption_extension
(.caption unless told otherwise), UTF-8, its first line; without one the class tokens, without those the empty caption.
A folder's own pictures count, not its subfolders'.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vez.dataset.remarks import Remarks
from vez.errors import DataError

KOHYA_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl")
SUFFIXES: Final = frozenset({*KOHYA_SUFFIXES, ".gif", ".tif", ".tiff", ".heic", ".heif"})
_UNREADABLE: Final = (".jxl",)  # vez cannot decode it
CAPTIONS: Final = (".caption", ".txt")
_MOST_BYTES: Final = 100_000  # of a caption's file; no caption is longer
_BOM: Final = "\ufeff"


@dataclass(frozen=True)
class Found:
    """A picture in somebody's dataset, and what is said about it there."""

    path: Path
    name: str
    """What it is called in remarks and in provenance.jsonl: relative to the dataset."""
    caption: str = ""
    """In one line; empty: none."""
    held_out: bool = False
    mask: Path | None = None


@dataclass(frozen=True)
class Reading:
    """How the captions of a folder are read."""

    extension: str = ".caption"
    """The one looked for first."""
    strict: bool = False
    """Take no other extension: the person asked for this one."""
    words: str | None = None
    """Class tokens: the caption of a picture without one."""
    lines: Literal["first", "join", "draw"] = "first"
    """Of several lines the first (as kohya), all of them joined, or all of them, to be drawn from."""
    before: str = ""
    after: str = ""
    """Put before and after every caption, with a space between."""


def pictures(folder: Path, remarks: Remarks, *, root: Path, as_kohya: bool) -> list[Path]:
    """The pictures of a folder by name; what is passed over is remarked on. Raises DataError if it cannot be read."""
    kept: list[Path] = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error
    for path in entries:
        suffix, name = path.suffix.lower(), shown(path, root)
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if holds_pictures(path):
                remarks.add("nested folder", name)
            continue
        if suffix not in SUFFIXES or not path.is_file() or leads_out(path, remarks, root=root):
            continue
        mixed = path.suffix not in (suffix, suffix.upper())
        if as_kohya and (suffix not in KOHYA_SUFFIXES or mixed):
            remarks.add("not read", name)
        elif suffix in _UNREADABLE:
            remarks.add("unknown kind", name)
        else:
            kept.append(path)
    return kept


def captioned(found: Sequence[Path], reading: Reading, remarks: Remarks, *, root: Path) -> list[Found]:
    """The pictures with their captions. Raises DataError where a file cannot be read at all."""
    stems = Counter(path.with_suffix("") for path in found)
    for path in found:
        if stems[path.with_suffix("")] > 1:
            remarks.add("one stem", shown(path, root))
    read = [Found(path, shown(path, root), _caption(path, reading, remarks, root=root)) for path in found]
    folders = {path.parent for path in found}
    for folder in sorted(folders):
        for path in sorted(folder.iterdir()):
            stem = path.with_suffix("")
            if path.suffix.lower() in CAPTIONS and stem not in stems and not path.name.startswith("."):
                remarks.add("no picture", shown(path, root))
    return read


def shown(path: Path, root: Path) -> str:
    """A path as it is called in remarks: relative to the dataset where it lies in it."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def leads_out(path: Path, remarks: Remarks, *, root: Path) -> bool:
    """Whether a file is a link out of the dataset, which might bring in what was never meant to be a part of it."""
    if not path.is_symlink() or path.resolve().is_relative_to(root.resolve()):
        return False
    remarks.add("link", shown(path, root))
    return True


def holds_pictures(folder: Path) -> bool:
    """Whether a folder holds a picture file. False where it cannot be read."""
    try:
        return any(path.suffix.lower() in SUFFIXES and path.is_file() for path in folder.iterdir())
    except OSError:
        return False


def _caption(path: Path, reading: Reading, remarks: Remarks, *, root: Path) -> str:
    """The caption, remarked on; empty where there is none to be taken."""
    name = shown(path, root)
    own = path.with_name(path.stem + reading.extension)
    others = [path.with_name(path.stem + extension) for extension in CAPTIONS if extension != reading.extension]
    there = [other for other in others if other.is_file() and not leads_out(other, remarks, root=root)]
    has_own = own.is_file() and not leads_out(own, remarks, root=root)
    if has_own and any(_bytes(other) != _bytes(own) for other in there):
        remarks.add("two captions", name)
    if not has_own and there:
        remarks.add("other extension, left" if reading.strict else "other extension", name)
    file = own if has_own else None if reading.strict or not there else there[0]
    if file is not None:
        text = _text(file, name, reading, remarks)
        if not text:
            return ""
    else:
        if (stray := _fallback(path, reading.extension)) is not None:
            remarks.add("fallback", f"{name} ← {shown(stray, root)}")
        text = reading.words or ""
        remarks.add("class tokens" if text else "no caption", name)
    return " ".join(part for part in (reading.before, text, reading.after) if part)


def _text(file: Path, name: str, reading: Reading, remarks: Remarks) -> str:
    data = _bytes(file)
    if len(data) > _MOST_BYTES:
        remarks.add("too large", name)
        return ""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        remarks.add("not UTF-8", name)
        return ""
    if text.startswith(_BOM):
        remarks.add("byte order mark", name)
        text = text.removeprefix(_BOM)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n").split("\n")  # Python's universal newlines
    filled = [line.strip() for line in lines if line.strip()]
    if len(filled) > 1 and reading.lines != "draw":
        remarks.add("first line" if reading.lines == "first" else "joined lines", name)
    # the first line of the file is taken even where it is blank: so does kohya
    first = (text.replace("\r", "\n").split("\n") or [""])[0].strip()
    caption = first if reading.lines == "first" else ("\n" if reading.lines == "draw" else " ").join(filled)
    if not caption:
        remarks.add("empty caption", name)
    return caption


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


def _fallback(path: Path, extension: str) -> Path | None:
    """The other file that kohya would take the caption from: it drops the last four parts of the *whole* path.

    Meant for faces cut out as ``name_x_y_w_h.png``; underscores in the names of folders count as well.
    """
    parts = str(path.absolute().with_suffix("")).split("_")
    if len(parts) < 5:
        return None
    stray = Path("_".join(parts[:-4]) + extension)
    return stray if stray.is_file() else None
