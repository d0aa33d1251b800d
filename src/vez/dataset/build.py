"""The build stage: a folder of pictures → a dataset, frozen under an id. The person's files are only read.

`vez.dataset.rows` says what the artifact holds.
"""

import difflib
import hashlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from numpy import float32
from numpy.typing import NDArray

from vez.config import Config
from vez.config import Dataset as Recipe
from vez.dataset import hand
from vez.dataset.card import card
from vez.dataset.look import LOG, Look, Looked, Made, faces_of, look, training_names
from vez.dataset.rows import KIND, VERSION, Dataset, Dropped, Row, write_lines
from vez.dataset.split import choose_held_out, groups
from vez.dataset.spoken import say
from vez.errors import ConfigError, DataError
from vez.events import Done, Event, Note, Stage
from vez.images import boxes, provenance
from vez.images.caption import final_caption
from vez.images.captioners import Captioner, identity_of
from vez.images.captioners import load as load_captioner
from vez.images.checks import Picture, check
from vez.images.findings import Finding, settle, waive
from vez.images.provenance import Provenance
from vez.store import artifact_id, file_sha256, find, making, write_atomic

_PICTURES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif"}
)


@dataclass(frozen=True)
class _Kept:
    """A training picture that stays: whose it is, how it was cut, its group and its split."""

    source: str
    made: Made
    group: str
    held_out: bool

    @property
    def stem(self) -> str:
        """What its hand caption is called after: the picture's stem, and the crop where that is not "full"."""
        stem = Path(self.source).stem
        return stem if self.made.cut.crop == "full" else f"{stem}.{self.made.cut.crop}"


def build(config: Config, name: str, *, captioner: Captioner | None = None) -> Iterator[Event]:
    """Check, crop, caption and freeze ``[dataset.<name>]``; the last event is Done with the artifact's folder.

    If that dataset exists already, nothing is done; a build that was cut goes on. Without a ``captioner`` the one that
    the configuration names is loaded, and only if a picture has no hand caption. Raises ConfigError for an unknown name
    and DataError where no dataset can be made of the pictures; a broken picture is a finding, not an error.
    """
    recipe = recipe_of(config, name)
    folder = config.root / recipe.images
    sources, captions = read_sources(folder), hand.read(_captions_folder(config, recipe))
    _refuse_strangers(recipe, sources)
    made_with = _made_with(config, recipe, sources, captions)
    id = artifact_id(KIND, {}, made_with, VERSION)
    target = config.root / ".vez" / "datasets" / f"{name}-{id[:8]}"
    if find(target, id) is not None:
        yield Note(f"the dataset {name} is there already ({id[:8]})")
        yield Done(target, id)
        return
    with making(target, kind=KIND, parents={}, config=made_with, version=VERSION) as made:
        for part in ("images", "masks") if recipe.masks else ("images",):
            (made.path / part).mkdir(exist_ok=True)
        yield Stage("check", len(sources), name)
        names = training_names(list(sources), recipe.crops)
        faces = faces_of(recipe, config.root)
        looked = yield from look(Look(recipe, config.root, boxes.read(folder), made.path, names, faces), sources)
        records = provenance.read(folder)
        findings = _findings(looked, recipe, records, captions)
        dropped = _dropped(findings, recipe, sources)
        findings = settle(findings, {one.file for one in dropped})
        for one in dropped:
            yield Note(f"left out {one.file}: {one.reason}")
        kept = _kept(looked, dropped, findings, recipe, records)
        gone = {Path(one.file).stem for one in dropped}
        texts, remarks = hand.texts(captions, [one.stem for one in kept], left_out=gone)
        spoken = {one.made.sha256: made.path / one.made.file for one in kept if one.stem not in texts}
        yield Stage("caption", len(spoken), f"{len(kept) - len(spoken)} written by hand")
        machine = yield from say(
            spoken,
            captioner=lambda: captioner or load_captioner(recipe.captioner, base=config.project.base, root=config.root),
            cache=None if captioner else config.root / ".vez" / "captions",
            identity=identity_of(recipe.captioner, base=config.project.base, root=config.root),
        )
        rows = [_row(one, config, recipe, texts, machine, sources, records) for one in kept]
        findings += waive(remarks, recipe.waive)
        _freeze(Dataset(made.path, id, tuple(rows), tuple(findings), tuple(dropped), made_with), config, records)
    yield Done(target, id)


def inspect(
    config: Config, name: str, *, features: NDArray[float32] | None = None
) -> Generator[Event, None, list[Finding]]:
    """The findings about the pictures of ``[dataset.<name>]``, without making anything; those about pictures that its
    build would leave out are marked.

    ``features`` are unit vectors of the pictures, (N, D) in the order of `read_sources`, for pictures of one scene.
    Raises as `build` does.
    """
    recipe = recipe_of(config, name)
    folder = config.root / recipe.images
    sources = read_sources(folder)
    _refuse_strangers(recipe, sources)
    yield Stage("check", len(sources), name)
    looked = yield from look(Look(recipe, config.root, boxes.read(folder)), sources)
    captions = hand.read(_captions_folder(config, recipe))
    found = _findings(looked, recipe, provenance.read(folder), captions, features=features)
    return settle(found, {one.file for one in _dropped(found, recipe, sources)})


def recipe_of(config: Config, name: str) -> Recipe:
    """The table ``[dataset.<name>]``. Raises ConfigError where there is none."""
    if name not in config.dataset:
        raise ConfigError(f"there is no [dataset.{name}]; known are: {', '.join(config.dataset) or 'none'}")
    return config.dataset[name]


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
        with ThreadPoolExecutor() as pool:
            return dict(zip(names, pool.map(file_sha256, (folder / name for name in names)), strict=True))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _captions_folder(config: Config, recipe: Recipe) -> Path | None:
    return None if recipe.captions is None else config.root / recipe.captions


def _refuse_strangers(recipe: Recipe, sources: Mapping[str, str]) -> None:
    """A name in vez.toml that no picture has is a mistake: what was meant to happen would silently not happen."""
    named = {
        "exclude": [one.file for one in recipe.exclude],
        "override": list(recipe.override),
        "waive": [one.file for one in recipe.waive if one.file != "*" and Path(one.file).suffix != ".txt"],
    }
    for table, files in named.items():
        for file in files:
            if file not in sources:
                near = difflib.get_close_matches(file, sources, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "name a picture as it is called there"
                raise ConfigError(f"{table} names {file!r}, but there is no such picture in {recipe.images}; {hint}")


def _made_with(
    config: Config, recipe: Recipe, sources: Mapping[str, str], captions: Mapping[str, bytes]
) -> dict[str, Any]:
    """All that decides what the dataset holds; no path of this machine, so that a moved project keeps its ids."""
    folder = config.root / recipe.images
    settings = recipe.model_dump(mode="json", exclude={"images", "captions"})
    beside = {name: file_sha256(folder / name) for name in ("boxes.toml", provenance.FILE) if (folder / name).is_file()}
    if recipe.masks and recipe.masks != "alpha" and (config.root / recipe.masks).is_dir():
        masks = sorted((config.root / recipe.masks).glob("*.png"))
        settings["masks"] = {path.name: file_sha256(path) for path in masks}
    if recipe.faces and (config.root / recipe.faces).is_file():
        settings["faces"] = file_sha256(config.root / recipe.faces)
    return settings | {
        "captioner": identity_of(recipe.captioner, base=config.project.base, root=config.root),
        "project": config.project.model_dump(exclude={"base"}),
        "sources": dict(sources),
        "beside": beside,
        "hand": {stem: hashlib.sha256(text).hexdigest() for stem, text in captions.items()},
    }


def _findings(
    looked: Sequence[Looked],
    recipe: Recipe,
    records: Mapping[str, Provenance],
    captions: Mapping[str, bytes],
    *,
    features: NDArray[float32] | None = None,
) -> list[Finding]:
    pictures = [one.picture for one in looked]
    order = _best_first(pictures, captions)
    found = check(
        [pictures[i] for i in order],
        resolution=recipe.resolution,
        thresholds=recipe.checks,
        provenance=records,
        features=None if features is None else features[order],
        background_said=recipe.background is not None or recipe.masks == "alpha",
    )
    return waive(found, recipe.waive)


def _best_first(pictures: Sequence[Picture], captions: Mapping[str, bytes]) -> list[int]:
    """The order in which of two duplicates the first is kept: with a hand caption, then larger, then by name."""

    def merit(i: int) -> tuple[bool, int, str]:
        picture = pictures[i]
        return Path(picture.file).stem not in captions, -picture.width * picture.height, picture.file

    return sorted(range(len(pictures)), key=merit)


def _dropped(findings: Iterable[Finding], recipe: Recipe, sources: Iterable[str]) -> list[Dropped]:
    """What is left out, by name: excluded by hand, or for the first finding that drops. Of duplicates the first stays
    that is itself kept."""
    out = {one.file: Dropped(one.file, one.reason, "excluded") for one in recipe.exclude}
    for f in findings:
        wanted = f.check == "unreadable" or (f.check in recipe.drop and not f.waived)
        if wanted and f.file not in out and f.other not in out:
            out[f.file] = Dropped(f.file, str(f.value) if f.check == "unreadable" else f.why, f.check)
    return [out[file] for file in sources if file in out]


def _kept(
    looked: Sequence[Looked],
    dropped: Sequence[Dropped],
    findings: Sequence[Finding],
    recipe: Recipe,
    records: Mapping[str, Provenance],
) -> list[_Kept]:
    """The training pictures that stay, in the order of their sources. A held-out picture stays whole, uncropped."""
    gone = {one.file for one in dropped}
    stay = [one for one in looked if one.picture.file not in gone]
    grouped = groups([one.picture.file for one in stay], findings, records)
    held_out = choose_held_out([one.picture for one in stay], grouped, recipe.held_out)
    group_of = {file: name for name, files in grouped.items() for file in files}
    return [
        _Kept(one.picture.file, made, group_of[one.picture.file], one.picture.file in held_out)
        for one in stay
        for made in (one.made[:1] if one.picture.file in held_out else one.made)
    ]


def _row(
    one: _Kept,
    config: Config,
    recipe: Recipe,
    texts: Mapping[str, str],
    machine: Mapping[str, str],
    sources: Mapping[str, str],
    records: Mapping[str, Provenance],
) -> Row:
    made, said = one.made, machine.get(one.made.sha256)
    final = partial(final_caption, project=config.project, recipe=recipe, file=one.source)
    return Row(
        file=made.file,
        sha256=made.sha256,
        source=one.source,
        source_sha256=sources[one.source],
        machine=said,
        caption=texts[one.stem] if one.stem in texts else final(said or ""),
        hand=one.stem in texts,
        split="held_out" if one.held_out else "train",
        crop=made.cut.crop,
        box=made.cut.box,
        boxed=made.cut.boxed,
        width=made.cut.size[0],
        height=made.cut.size[1],
        mask=made.mask,
        group=one.group,
        licence=records[one.source].licence if one.source in records else "",
    )


def _freeze(dataset: Dataset, config: Config, records: Mapping[str, Provenance]) -> None:
    """Write the tables and the card; take away the pictures that did not stay, and the log."""
    stays = {row.file for row in dataset.rows} | {row.mask for row in dataset.rows}
    for path in [*(dataset.path / "images").iterdir(), *(dataset.path / "masks").glob("*")]:
        if path.relative_to(dataset.path).as_posix() not in stays:
            path.unlink()
    (dataset.path / LOG).unlink(missing_ok=True)
    write_lines(dataset.path / "rows.jsonl", map(asdict, dataset.rows))
    write_lines(dataset.path / "findings.jsonl", map(asdict, dataset.findings))
    write_lines(dataset.path / "dropped.jsonl", map(asdict, dataset.dropped))
    used = {row.source for row in dataset.rows}
    provenance.write(dataset.path, [record for file, record in records.items() if file in used])
    write_atomic(dataset.path / "card.md", card(dataset, config.project).encode())
