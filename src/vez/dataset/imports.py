"""Somebody's dataset becomes a folder of pictures and one of hand captions in a project, with what was remarkable.

Layouts: kohya (numbered folders, or a --dataset_config), imagefolder (metadata.jsonl or metadata.csv), sidecars
(pictures with .txt or .caption beside them). The source is only read; all of it is imported or nothing. Places in the
metadata of pictures are taken out on the way.
"""

import hashlib
import re
import secrets
import shutil
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from vez.dataset import imagefolder, kohya, sidecars
from vez.dataset.remarks import Remark, Remarks
from vez.dataset.sidecars import Found, Reading
from vez.errors import ConfigError, DataError, StoreError
from vez.images import provenance
from vez.images.metadata import strip_places
from vez.images.provenance import Provenance
from vez.images.wording import visible

Layout = Literal["auto", "kohya", "imagefolder", "sidecars"]
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # as vez.config has it
_NOT_IN_NAMES: Final = frozenset('/\\:*?"<>|.')
_LONGEST: Final = 120  # bytes of a stem


@dataclass(frozen=True)
class Folder:
    """A numbered folder (or a subset of a config) that was read."""

    name: str
    repeats: int
    words: str
    """Its class tokens."""
    pictures: int


@dataclass(frozen=True)
class Part:
    """One dataset that was made."""

    name: str
    role: Literal["concept", "class"]
    pictures: int
    captions: int
    folders: tuple[Folder, ...]
    renamed: Mapping[str, str]
    """Where its name changed: what a picture was called in the source → what it is called now."""


@dataclass(frozen=True)
class Imported:
    """What was imported."""

    layout: str
    parts: tuple[Part, ...]
    trigger: str
    """A guess at the trigger word: the first of the class tokens, or of what all captions begin with."""
    remarks: tuple[Remark, ...]
    tables: str
    """[dataset.<name>] tables for vez.toml (`vez.toml_edit.add_dataset`)."""

    @property
    def pictures(self) -> int:
        """Of all parts."""
        return sum(part.pictures for part in self.parts)

    @property
    def captions(self) -> int:
        """Of all parts."""
        return sum(part.captions for part in self.parts)

    def as_text(self) -> str:
        """What was imported and what is to know about it, for a terminal."""
        lines = []
        for part in self.parts:
            what = "class pictures" if part.role == "class" else "pictures"
            lines.append(f"[dataset.{part.name}] {part.pictures} {what}, {part.captions} with a caption")
            for folder in part.folders:
                words = f" ({visible(folder.words)})" if folder.words else ""
                lines.append(f"  {visible(folder.name)}: {folder.pictures} × {folder.repeats}{words}")
        if self.trigger:
            lines.append(f"The trigger word may be {visible(self.trigger)!r}.")
        return "\n".join([*lines, *(f"! {remark.text}" for remark in self.remarks)])


@dataclass(frozen=True)
class _Heap:
    """What is to become one dataset."""

    role: Literal["concept", "class"]
    found: tuple[Found, ...]
    folders: tuple[Folder, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    """Keys of the table and their TOML."""


@dataclass(frozen=True)
class _Copied:
    """One picture under way: its new name, and its new record if the source had one."""

    found: Found
    name: str
    record: Provenance | None


def import_dataset(
    source: Path, into: Path, *, name: str, layout: Layout = "auto", caption_extension: str | None = None
) -> Imported:
    """Copy the dataset at ``source`` into the project folder ``into``.

    Pictures go to ``images/<name>/``, captions to ``captions/<name>/<stem>.txt``, masks to ``masks/<name>/``;
    regularisation pictures to ``<name>-class`` likewise. ``caption_extension`` is the one that captions have; without
    it kohya's default (.caption), or what the config says, comes first, and another is taken with a remark.
    Raises ConfigError for a name that no dataset can have or that is taken, DataError where there is no such dataset
    or it names files outside itself, StoreError where it cannot be written. Nothing is then left behind.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"no dataset can be called {name!r}; use letters, digits, dot, dash and underscore")
    extension = kohya.dotted(caption_extension) if caption_extension else None
    remarks = Remarks()
    source = source.absolute()
    found_layout = _layout(source) if layout == "auto" else layout
    heaps = _heaps(source, found_layout, extension, remarks)
    records = _records(source, heaps)
    names = {heap.role: name if heap.role == "concept" else f"{name}-class" for heap in heaps}
    if list(names) == ["class"]:
        names = {"class": name}
    for target in (into / top / new for new in names.values() for top in ("images", "captions", "masks")):
        if target.exists() or target.is_symlink():
            raise ConfigError(f"{target} is there already; import under another name, or move it elsewhere")
    stage = into / f".import-{name}-{secrets.token_hex(4)}"
    try:
        stage.mkdir(parents=True)
        parts = tuple(_copy(heap, stage, names[heap.role], records, remarks) for heap in heaps)
        _put(stage, into)
    except OSError as error:
        raise StoreError(f"cannot write into {into}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    tables = "\n".join(_table_of(part, heap, found_layout) for part, heap in zip(parts, heaps, strict=True))
    return Imported(found_layout, parts, _trigger(heaps), remarks.all(), tables)


def _layout(source: Path) -> Layout:
    """What the source looks like. Raises DataError where it is none of the known ones."""
    if source.is_file() and source.suffix.lower() in (".toml", ".json"):
        return "kohya"
    if not source.is_dir():
        raise DataError(f"there is no folder {source}, and it is no dataset config (.toml, .json) either")
    if imagefolder.metadata_files(source):
        return "imagefolder"
    if kohya.numbered(source) or kohya.numbered(source / "img"):
        return "kohya"
    if sidecars.holds_pictures(source):
        return "kohya" if kohya.number_and_words(source.name) and "_" in source.name else "sidecars"
    there = ", ".join(sorted(visible(path.name) for path in source.iterdir())[:8]) or "nothing"
    raise DataError(
        f"{source} is no dataset that vez knows: expected <N>_<words>/ with pictures (kohya), metadata.jsonl "
        f"(Hugging Face), or pictures with .txt beside them; there is {there}"
    )


def _heaps(source: Path, layout: Layout, extension: str | None, remarks: Remarks) -> list[_Heap]:
    if layout == "kohya":
        heaps = _kohya(source, extension, remarks)
    elif layout == "imagefolder":
        heaps = [_Heap("concept", tuple(imagefolder.read(source, remarks)))]
    else:
        if not source.is_dir():
            raise DataError(f"there is no folder {source}")
        reading = Reading(extension or ".txt", strict=extension is not None, lines="join")
        paths = sidecars.pictures(source, remarks, root=source, as_kohya=False)
        heaps = [_Heap("concept", tuple(sidecars.captioned(paths, reading, remarks, root=source)))]
    heaps = [heap for heap in heaps if heap.found]
    if not heaps:
        said = "; ".join(remark.text for remark in remarks.all())
        raise DataError(f"there is no picture to import in {source}" + (f" ({said})" if said else ""))
    return heaps


def _kohya(source: Path, extension: str | None, remarks: Remarks) -> list[_Heap]:
    read = kohya.from_config if source.is_file() else kohya.from_folders
    subsets = read(source, extension, remarks)
    root = source.parent if source.is_file() else source
    heaps = []
    roles: tuple[Literal["concept", "class"], ...] = ("concept", "class")
    for role in roles:
        of_role = [subset for subset in subsets if subset.is_reg == (role == "class")]
        found: list[Found] = []
        folders: list[Folder] = []
        for subset in of_role:
            top = root if subset.folder.is_relative_to(root) else subset.folder
            paths = sidecars.pictures(subset.folder, remarks, root=top, as_kohya=True)
            if not paths:
                remarks.add("empty folder", sidecars.shown(subset.folder, top))
                continue
            read_here = sidecars.captioned(paths, subset.reading, remarks, root=top)
            found += [_masked(picture, subset.masks, remarks) for picture in read_here]
            folders.append(Folder(subset.folder.name, subset.repeats, subset.reading.words or "", len(paths)))
        most = {folder.repeats for folder in folders}
        for folder in folders:
            if len(most) > 1 and folder.repeats > min(most):
                remarks.add("repeats", f"{folder.name} × {folder.repeats}")
        heaps.append(_Heap(role, tuple(found), tuple(folders), _settings(of_role)))
    return heaps


def _settings(subsets: Sequence[kohya.Subset]) -> tuple[tuple[str, str], ...]:
    """What the table says besides the folders, where all subsets agree on it."""
    resolutions = {subset.resolution for subset in subsets}
    settings = []
    if len(resolutions) == 1 and (side := next(iter(resolutions))):
        settings.append(("resolution", str(side)))
    if subsets and all(subset.buckets for subset in subsets):
        settings.append(("buckets", '"kohya"'))
    if subsets and all(subset.alpha for subset in subsets):
        settings.append(("masks", '"alpha"'))
    return tuple(settings)


def _masked(picture: Found, folder: Path | None, remarks: Remarks) -> Found:
    """The picture with its mask: a file of its stem in kohya's conditioning_data_dir."""
    if folder is None:
        return picture
    mask = folder / f"{picture.path.stem}.png"
    if mask.is_file() and not sidecars.leads_out(mask, remarks, root=folder):
        return replace(picture, mask=mask)
    if any((folder / f"{picture.path.stem}{suffix}").is_file() for suffix in sidecars.KOHYA_SUFFIXES):
        remarks.add("mask", picture.name)
    return picture


def _records(source: Path, heaps: Sequence[_Heap]) -> dict[Path, Provenance]:
    """Picture → its record in a provenance.jsonl beside the dataset or beside the picture."""
    records: dict[Path, Provenance] = {}
    pictures = {found.path for heap in heaps for found in heap.found}
    folders = {source if source.is_dir() else source.parent, *(path.parent for path in pictures)}
    for folder in sorted(folders):
        for record in provenance.read(folder).values():
            if (path := folder / record.file) in pictures:
                records[path] = record
    return records


def _copy(heap: _Heap, stage: Path, name: str, records: Mapping[Path, Provenance], remarks: Remarks) -> Part:
    images, captions, masks = (stage / top / name for top in ("images", "captions", "masks"))
    images.mkdir(parents=True)
    copied: list[_Copied] = []
    taken: set[str] = set()
    for found in heap.found:
        data = found.path.read_bytes()
        try:
            kept = strip_places(data)
        except DataError:
            remarks.add("place", found.name)
            continue
        new = _free_name(found.path, taken)
        taken.add(_folded(Path(new).stem))
        if new != found.path.name:
            remarks.add("renamed", f"{found.name} → {new}")
        (images / new).write_bytes(kept)
        copied.append(_Copied(found, new, _record(records.get(found.path), new, data, kept)))
    for copy in copied:
        stem = Path(copy.name).stem
        if copy.found.caption:
            captions.mkdir(parents=True, exist_ok=True)
            (captions / f"{stem}.txt").write_bytes((copy.found.caption + "\n").encode())
        if copy.found.mask is not None:
            masks.mkdir(parents=True, exist_ok=True)
            (masks / f"{stem}.png").write_bytes(strip_places(copy.found.mask.read_bytes()))
    known = [copy.record for copy in copied if copy.record is not None]
    if known:
        provenance.write(images, known)
    if not copied:
        raise DataError(f"no picture of {name} could be imported: {remarks.all()[-1].text}")
    renamed = {copy.found.name: copy.name for copy in copied if copy.found.path.name != copy.name}
    said = sum(bool(copy.found.caption) for copy in copied)
    return Part(name, heap.role, len(copied), said, heap.folders, renamed)


def _free_name(path: Path, taken: set[str]) -> str:
    """A name whose stem no other picture has, with no dot in it ("a.upper" names a crop's caption)."""
    name = unicodedata.normalize("NFC", path.stem.encode(errors="replace").decode())
    stem = "".join("-" if c in _NOT_IN_NAMES else c if c.isprintable() else "_" for c in name).strip(" ")
    stem = stem.encode()[:_LONGEST].decode(errors="ignore").strip(" ") or "picture"
    free, number = stem, 2
    while _folded(free) in taken:
        free, number = f"{stem}-{number}", number + 1
    return free + path.suffix


def _folded(stem: str) -> str:
    return unicodedata.normalize("NFKC", stem).casefold()


def _record(record: Provenance | None, name: str, original: bytes, kept: bytes) -> Provenance | None:
    if record is None:
        return None
    sha256 = [hashlib.sha256(data).hexdigest() for data in (original, kept)]
    return replace(record, file=name, sha256=sha256[1], original_sha256=record.original_sha256 or sha256[0])


def _put(stage: Path, into: Path) -> None:
    """Rename every staged folder to its place; if one cannot be, those already there are taken back."""
    done: list[Path] = []
    try:
        for folder in sorted(path for top in stage.iterdir() for path in top.iterdir()):
            target = into / folder.relative_to(stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
            done.append(target)
    except OSError:
        for target in done:
            shutil.rmtree(target, ignore_errors=True)
        raise


def _table_of(part: Part, heap: _Heap, layout: str) -> str:
    """The part's table for vez.toml."""
    lines = [f"# Imported ({layout}): {part.pictures} pictures, {part.captions} with a caption."]
    for folder in part.folders:
        words = f", class tokens {visible(folder.words)}" if folder.words else ""
        lines.append(f"# {visible(folder.name)}: {folder.pictures} pictures, repeats {folder.repeats}{words}")
    lines += [f"[dataset.{_quoted(part.name)}]", f'images = "images/{part.name}"']
    if part.role == "class":
        lines.append('role = "class"')
    if part.captions:
        lines.append(f'captions = "captions/{part.name}"')
    settings = dict(heap.settings)
    if any("\n" in found.caption for found in heap.found):
        settings["caption_lines"] = '"draw"'
    if any(found.mask for found in heap.found):
        settings["masks"] = f'"masks/{part.name}"'
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in settings.items())]) + "\n"


def _quoted(name: str) -> str:
    return f'"{name}"' if "." in name else name


def _trigger(heaps: Sequence[_Heap]) -> str:
    """The first class token, if it is the same in all folders; else the first tag, if all captions begin with it."""
    concept = next((heap for heap in heaps if heap.role == "concept"), None)
    if concept is None:
        return ""
    first = Counter(folder.words.split()[0] for folder in concept.folders if folder.words.split())
    if len(first) == 1:
        return next(iter(first))
    starts = {found.caption.split(",")[0].strip() for found in concept.found if found.caption}
    return next(iter(starts)) if len(starts) == 1 and len(concept.found) > 1 else ""
