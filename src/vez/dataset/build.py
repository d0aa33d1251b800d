"""The build stage: a folder of pictures → a dataset, frozen under an id.

The artifact (``.vez/datasets/<name>-<first 8 of id>/``) holds ``images/<stem>.png`` (resolution², RGB),
``rows.jsonl`` (one `Row` a line), ``findings.jsonl`` (`Finding`) and ``dropped.jsonl`` (``{"file", "reason"}``). The
person's files are only read.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from PIL import Image

from vez.config import Config, Project
from vez.config import Dataset as Recipe
from vez.dataset.rows import KIND, VERSION, Row, write_lines
from vez.errors import ConfigError, DataError
from vez.events import Done, Event, Note, Stage
from vez.images.caption import final_caption
from vez.images.captioners import Captioner, source_of
from vez.images.captioners import load as load_captioner
from vez.images.checks import Picture, check, measure
from vez.images.crop import crop
from vez.images.decode import decode
from vez.images.findings import Finding
from vez.images.pixels import pixels_sha256
from vez.store import Making, artifact_id, file_sha256, find, making

_PICTURES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif"}
)
_CAPTIONED_AT_ONCE: Final = 8


def build(config: Config, name: str, *, captioner: Captioner | None = None) -> Iterator[Event]:
    """Check, crop, caption and freeze ``[dataset.<name>]``; the last event is Done with the artifact's folder.

    If that dataset exists already, nothing is done. Without a ``captioner`` the one that the configuration names is
    loaded, and only if a picture has no hand caption. Raises ConfigError for an unknown name and DataError where no
    dataset can be made of the pictures; a broken picture is a finding, not an error.
    """
    recipe = _recipe(config, name)
    sources, captions = read_sources(config.root / recipe.images), _hand_captions(config, recipe)
    made_with = _made_with(config, recipe, sources, captions)
    id = artifact_id(KIND, {}, made_with, VERSION)
    folder = config.root / ".vez" / "datasets" / f"{name}-{id[:8]}"
    if find(folder, id) is not None:
        yield Note(f"the dataset {name} is there already ({id[:8]})")
        yield Done(folder, id)
        return
    with making(folder, kind=KIND, parents={}, config=made_with, version=VERSION) as made:
        yield Stage("check", len(sources), name)
        pictures, cropped = _cut(config.root / recipe.images, sources, recipe.resolution, made)
        findings = check(_best_first(pictures, captions), resolution=recipe.resolution, thresholds=recipe.checks)
        dropped = _dropped(findings, recipe)
        kept = [p for p in pictures if p.file not in dropped]
        held_out = choose_held_out(kept, findings, recipe.held_out)
        for file, reason in dropped.items():
            if file in cropped:
                (made.path / cropped[file]).unlink()
            yield Note(f"left out {file}: {reason}")
        by_hand, remarks = _read_captions(captions, [p.file for p in kept], config.project)
        rest = {p.file: made.path / cropped[p.file] for p in kept if p.file not in by_hand}
        yield Stage("caption", len(rest), f"{len(by_hand)} written by hand")
        machine = yield from _say(rest, captioner, recipe.captioner, config)
        rows = []
        for p in kept:
            said = machine.get(p.file)
            final = final_caption(said or "", config.project, recipe, file=p.file)
            row = Row(
                file=cropped[p.file],
                sha256=pixels_sha256(_opened(made.path / cropped[p.file])),
                source=p.file,
                source_sha256=sources[p.file],
                machine=said,
                caption=by_hand.get(p.file, final),
                hand=p.file in by_hand,
                split="held_out" if p.file in held_out else "train",
            )
            rows.append(asdict(row))
        write_lines(made.path / "rows.jsonl", rows)
        write_lines(made.path / "findings.jsonl", [asdict(finding) for finding in [*findings, *remarks]])
        write_lines(made.path / "dropped.jsonl", [{"file": f, "reason": reason} for f, reason in dropped.items()])
    yield Done(folder, id)


def inspect(config: Config, name: str) -> list[Finding]:
    """The findings about the pictures of ``[dataset.<name>]``, without making anything. Raises as `build` does."""
    recipe = _recipe(config, name)
    folder = config.root / recipe.images
    pictures = [_look(folder / file, file, recipe.resolution)[0] for file in read_sources(folder)]
    best_first = _best_first(pictures, _hand_captions(config, recipe))
    return check(best_first, resolution=recipe.resolution, thresholds=recipe.checks)


def read_sources(folder: Path) -> dict[str, str]:
    """File name → SHA-256 of every picture file in ``folder``, sorted by name; its subfolders and hidden files are
    left alone.

    Raises DataError if there is no such folder, no picture in it, or a file cannot be read at all.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; put the pictures there, or change `images` in vez.toml")
    files = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICTURES and not p.name.startswith("."))
    # is_file: a named pipe would never end
    names = [name for name in files if (folder / name).is_file()]
    if not names:
        raise DataError(f"there are no pictures in {folder}; put JPEG, PNG or WebP files there")
    try:
        return {name: file_sha256(folder / name) for name in names}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def choose_held_out(pictures: Sequence[Picture], findings: Sequence[Finding], wanted: int) -> frozenset[str]:
    """The files kept from training: the first ``wanted`` by the hash of their pixels.

    None of them is an exact or near-duplicate of any other picture, so nothing trained on shows what is held out.
    Raises DataError where too few pictures qualify, or none would be left to train on.
    """
    if not pictures:
        raise DataError("no picture is left to train on; see the findings, or drop less")
    if wanted == 0:
        return frozenset()
    kept = {p.file for p in pictures}
    pairs = [(f.file, f.other) for f in findings if f.other and {f.file, f.other} <= kept]
    single = sorted((p.pixels, p.file) for p in pictures if all(p.file not in pair for pair in pairs))
    if len(single) < wanted or len(pictures) <= wanted:
        raise DataError(
            f"held_out = {wanted}, but of {len(pictures)} pictures {len(single)} have no near-duplicate, and at least "
            "one must be left to train on; lower held_out or add pictures"
        )
    return frozenset(file for _, file in single[:wanted])


def _recipe(config: Config, name: str) -> Recipe:
    if name not in config.dataset:
        raise ConfigError(f"there is no [dataset.{name}]; known are: {', '.join(config.dataset) or 'none'}")
    return config.dataset[name]


def _made_with(
    config: Config, recipe: Recipe, sources: Mapping[str, str], captions: Mapping[str, bytes]
) -> dict[str, Any]:
    """All that decides what the dataset holds; no path of this machine, so that a moved project keeps its ids."""
    settings = recipe.model_dump(mode="json", exclude={"images", "captions"})
    captioner = Path(source_of(recipe.captioner, base=config.project.base, root=config.root))
    if captioner.is_dir():  # a folder can be filled anew under the same name
        weights = {
            p.name: file_sha256(p) for p in sorted(captioner.iterdir()) if p.suffix in (".safetensors", ".json", ".txt")
        }
    else:
        weights = {"source": recipe.captioner if recipe.captioner != "blip" else f"blip for {config.project.base}"}
    hand = {stem: hashlib.sha256(text).hexdigest() for stem, text in captions.items()}
    words = config.project.model_dump(exclude={"base"})
    return settings | {"captioner": weights, "project": words, "sources": dict(sources), "hand": hand}


def _look(path: Path, file: str, resolution: int, sha256: str = "") -> tuple[Picture, Image.Image | None]:
    try:
        data = path.read_bytes()
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise DataError(f"{path} changed while it was being read; build again")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; build again") from error
    try:
        image = decode(data)
    except DataError as error:
        return Picture(file, error=str(error)), None
    return measure(file, image, resolution=resolution), image


def _cut(
    folder: Path, sources: Mapping[str, str], resolution: int, made: Making
) -> tuple[list[Picture], dict[str, str]]:
    """Measure every picture and write its crop; file → training picture for those that can be read."""
    (made.path / "images").mkdir(exist_ok=True)
    names = training_names(sources)
    pictures, cropped = [], {}
    for file, sha256 in sources.items():
        picture, image = _look(folder / file, file, resolution, sha256)
        pictures.append(picture)
        if image is not None:
            cropped[file] = f"images/{names[file]}"
            crop(image, resolution).save(made.path / cropped[file], format="PNG")
    return pictures, cropped


def _best_first(pictures: Sequence[Picture], captions: Mapping[str, bytes]) -> list[Picture]:
    """The order in which of two duplicates the first is kept: with a hand caption, then larger, then by name."""
    return sorted(pictures, key=lambda p: (Path(p.file).stem not in captions, -p.width * p.height, p.file))


def training_names(files: Iterable[str]) -> dict[str, str]:
    """File → <stem>.png, all different even where letter case is ignored: a.jpg beside a.png becomes a-jpg.png."""
    files = list(files)
    stems = [Path(file).stem.lower() for file in files]
    names: dict[str, str] = {}
    taken: set[str] = set()
    # those whose stem is theirs alone come first, so that no other file's makeshift name takes it
    for file in sorted(files, key=lambda f: stems.count(Path(f).stem.lower()) > 1):
        path = Path(file)
        name = path.stem if stems.count(path.stem.lower()) == 1 else f"{path.stem}-{path.suffix[1:]}"
        while name.lower() in taken:
            name += "-"
        taken.add(name.lower())
        names[file] = f"{name}.png"
    return names


def _dropped(findings: Sequence[Finding], recipe: Recipe) -> dict[str, str]:
    """File → why it is left out (the first reason). Of duplicates the first that is itself kept stays."""
    dropped: dict[str, str] = {}
    for f in findings:
        wanted = f.check == "unreadable" or f.check in recipe.drop
        if wanted and f.file not in dropped and f.other not in dropped:
            dropped[f.file] = f"{f.check}: {f.value if f.check == 'unreadable' else f.why}"
    return dropped


def _hand_captions(config: Config, recipe: Recipe) -> dict[str, bytes]:
    """Stem → bytes of each hand caption. Raises DataError if the folder that vez.toml names is absent."""
    if recipe.captions is None:
        return {}
    folder = config.root / recipe.captions
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; put the captions there, or take `captions` out of vez.toml")
    try:
        return {p.stem: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix.lower() == ".txt" and p.is_file()}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _read_captions(
    captions: Mapping[str, bytes], files: Sequence[str], project: Project
) -> tuple[dict[str, str], list[Finding]]:
    """File → its hand caption in one line; and findings about captions that cannot be used or lack the trigger."""
    read: dict[str, str] = {}
    remarks: list[Finding] = []

    def remark(file: str, value: str, why: str, fix: str) -> None:
        remarks.append(Finding(file, "caption", value, "", why, fix))

    for file in files:
        stem = Path(file).stem
        if stem not in captions:
            continue
        try:
            text = " ".join(captions[stem].decode("utf-8-sig").split())
        except UnicodeDecodeError:
            remark(
                file, "not UTF-8", "its hand caption cannot be read; the machine's stands", f"save {stem}.txt as UTF-8"
            )
            continue
        if not text:
            remark(file, "empty", "its hand caption is empty; the machine's stands", f"write {stem}.txt or remove it")
            continue
        read[file] = text
        if project.trigger.lower() not in text.lower():
            why = "its hand caption lacks the trigger word, so the picture teaches the concept under other words"
            remark(file, text, why, f"add {project.trigger!r} to {stem}.txt")
    stems = {Path(file).stem for file in files}
    for stem in captions:
        if stem not in stems:
            remark(f"{stem}.txt", "", "no picture in the dataset has this name", "rename it, or leave it")
    return read, remarks


def _say(
    pictures: Mapping[str, Path], captioner: Captioner | None, name: str, config: Config
) -> Generator[Event, None, dict[str, str]]:
    """File → machine caption of its training picture; the captioner is loaded only if there is one to caption."""
    said: dict[str, str] = {}
    if not pictures:
        return said
    speaker = captioner or load_captioner(name, base=config.project.base, root=config.root)
    files = list(pictures)
    for start in range(0, len(files), _CAPTIONED_AT_ONCE):
        group = files[start : start + _CAPTIONED_AT_ONCE]
        captions = speaker.caption([_opened(pictures[file]) for file in group])
        said.update(zip(group, captions, strict=True))
        yield Note(f"captioned {len(said)} of {len(files)}")
    return said


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
