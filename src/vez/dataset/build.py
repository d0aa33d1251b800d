"""The build stage: a folder of pictures → a dataset, frozen under an id. The person's files are only read.

`vez.dataset.rows` says what the artifact holds.
"""

import difflib
import hashlib
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

from numpy import float32
from numpy.typing import NDArray

from vez.config import WORD_CHECKS, Config, CropName
from vez.config import Dataset as Recipe
from vez.dataset import hand, moved
from vez.dataset.card import card
from vez.dataset.look import LOG, Look, Looked, Made, enlarged, faces_of, look, training_names
from vez.dataset.rows import KIND, VERSION, Dataset, Dropped, Row, write_lines
from vez.dataset.split import choose_held_out, groups
from vez.dataset.spoken import say
from vez.errors import ConfigError, DataError
from vez.events import Done, Event, Note, Stage
from vez.images import boxes, masks, provenance
from vez.images.caption import final_caption
from vez.images.captioners import Captioner, identity_of
from vez.images.captioners import load as load_captioner
from vez.images.checks import check
from vez.images.findings import Finding, settle, waive
from vez.images.provenance import Provenance
from vez.images.wording import visible
from vez.store import artifact_id, file_sha256, find, making, write_atomic

_PICTURES: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif"}
)
_CROPS: Final[tuple[CropName, ...]] = get_args(CropName)
# Findings of lint, which come after the build: that one of them is accepted changes nothing in a dataset.
_LATER: Final = frozenset(WORD_CHECKS) - {"caption-missing", "caption-encoding", "caption-unused"}


@dataclass(frozen=True)
class _Kept:
    """A training picture that stays: whose it is, how it was cut, its group and its split."""

    source: str
    made: Made
    group: str
    held_out: bool
    stem: str
    """What its hand caption is called after."""
    upright: int
    """Width of the whole upright picture in pixels."""


def build(config: Config, name: str, *, captioner: Captioner | None = None) -> Iterator[Event]:
    """Check, crop, caption and freeze ``[dataset.<name>]``; the last event is Done with the artifact's folder.

    If that dataset exists already, nothing is done; a build that was cut goes on. Without a ``captioner`` the one that
    the configuration names is loaded, and only if a picture has no hand caption. Raises ConfigError for an unknown name
    and DataError where no dataset can be made of the pictures; a broken picture is a finding, not an error.
    """
    recipe = recipe_of(config, name)
    folder = config.root / recipe.images
    sources, captions = read_sources(folder), hand.read(_captions_folder(config, recipe))
    made_with = _made_with(config, recipe, sources, captions)
    by_hand, records = boxes.read(folder), provenance.read(folder)
    refuse_strangers(recipe, sources, by_hand)
    id = artifact_id(KIND, {}, made_with, VERSION)
    target = config.root / ".vez" / "datasets" / f"{name}-{id[:8]}"
    if find(target, id) is not None:
        yield Note(f"the dataset {name} is there already ({id[:8]})")
        yield Done(target, id)
        return
    with making(target, kind=KIND, parents={}, config=made_with, version=VERSION) as made:
        for part in moved.folders(recipe):
            (made.path / part).mkdir(exist_ok=True)
        yield Stage("check", len(sources), name)
        yield from _said_of_masks(config, recipe, sources)
        names = training_names(list(sources), recipe.crops)
        faces = faces_of(recipe, config.root)
        looked = yield from look(Look(recipe, config.root, by_hand, made.path, names, faces), sources)
        findings = _findings(looked, recipe, records, captions)
        dropped = _dropped(findings, recipe, sources, uncut={one.picture.file for one in looked if not one.made})
        soft = waive(enlarged(looked, recipe.resolution), recipe.waive)
        findings = settle([*findings, *soft], {one.file for one in dropped})
        for one in dropped:
            yield Note(f"left out {visible(one.file)}: {visible(one.reason)}")
        for finding in filter(lambda finding: finding.is_open, soft):
            yield Note(f"{visible(finding.file)}: {finding.value}: {finding.why}")
        kept = _kept(looked, dropped, findings, recipe, records, captions)
        stems, unasked = [one.stem for one in kept], _unasked(kept, recipe, sources)
        texts, remarks = hand.texts(captions, stems, left_out=unasked, lines=recipe.caption_lines)
        spoken = {one.made.sha256: made.path / one.made.file for one in kept if one.stem not in texts}
        yield Stage("caption", len(spoken), f"{len(kept) - len(spoken)} written by hand")
        machine = yield from say(
            spoken,
            captioner=lambda: captioner or load_captioner(recipe.captioner, base=config.project.base, root=config.root),
            cache=None if captioner else config.root / ".vez" / "captions",
            identity=identity_of(recipe.captioner, base=config.project.base, root=config.root),
        )
        rows = [_row(one, config, recipe, texts, machine, sources, records) for one in kept]
        yield from moved.said(rows, recipe)
        findings += waive(remarks, recipe.waive)
        _refuse_changes(config, recipe, made_with)
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
    sources, by_hand = read_sources(folder), boxes.read(folder)
    refuse_strangers(recipe, sources, by_hand)
    yield Stage("check", len(sources), name)
    looked = yield from look(Look(recipe, config.root, by_hand), sources)
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

    Raises DataError if there is no such folder, no picture in it, a file cannot be read at all, or the name of one is
    no text.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; put the pictures there, or change `images` in vez.toml")
    files = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICTURES and not p.name.startswith("."))
    # is_file: a named pipe would never end
    names = [name for name in files if (folder / name).is_file()]
    if not names:
        raise DataError(f"there are no pictures in {folder}; put JPEG, PNG or WebP files there")
    for name in names:
        _refuse_damaged(folder, name)
    try:
        with ThreadPoolExecutor() as pool:
            return dict(zip(names, pool.map(file_sha256, (folder / name for name in names)), strict=True))
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error


def _captions_folder(config: Config, recipe: Recipe) -> Path | None:
    return None if recipe.captions is None else config.root / recipe.captions


def _refuse_damaged(folder: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the name of {visible(name)!r} in {folder} is not UTF-8 text; rename the file") from error


def refuse_strangers(recipe: Recipe, sources: Mapping[str, str], by_hand: Collection[str]) -> None:
    """A name in vez.toml or boxes.toml that no picture has is a mistake: what was meant would silently not happen."""
    named = {
        boxes.FILE: by_hand,
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
    for stem in captions:
        _refuse_damaged(config.root / (recipe.captions or ""), stem)
    unsaid = {"images", "captions"} | ({"random_crops"} if recipe.random_crops == 1 else set())
    settings = recipe.model_dump(mode="json", exclude=unsaid)
    settings["waive"] = [waiver for waiver in settings["waive"] if waiver["check"] not in _LATER]
    return (
        settings
        | {
            "captioner": identity_of(recipe.captioner, base=config.project.base, root=config.root),
            "project": config.project.model_dump(exclude={"base", "kind", "lookalikes", "gallery"}),
            "sources": dict(sources),
            "hand": {stem: hashlib.sha256(text).hexdigest() for stem, text in captions.items()},
        }
        | _files_beside(config, recipe, sources)
    )


def _files_beside(config: Config, recipe: Recipe, sources: Iterable[str]) -> dict[str, Any]:
    """SHA-256 of the files, besides pictures and captions, that decide what a dataset holds, by their settings."""
    folder = config.root / recipe.images
    names = (boxes.FILE, provenance.FILE)
    found: dict[str, Any] = {
        "beside": {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
    }
    stems = {Path(file).stem for file in sources}
    if recipe.masks and recipe.masks != masks.ALPHA:
        found["masks"] = {path.name: file_sha256(path) for path in _masks(config, recipe) if path.stem in stems}
    if recipe.faces and (config.root / recipe.faces).is_file():
        found["faces"] = file_sha256(config.root / recipe.faces)
    return found


def _refuse_changes(config: Config, recipe: Recipe, made_with: Mapping[str, Any]) -> None:
    """Raises DataError where a file that the dataset's id is made of has another content now."""
    for key, now in _files_beside(config, recipe, made_with["sources"]).items():
        if now != made_with[key]:
            what = f"{boxes.FILE} or {provenance.FILE} in {recipe.images}" if key == "beside" else f"{key}"
            raise DataError(f"{what} changed while the dataset was being made; build again")


def _masks(config: Config, recipe: Recipe) -> list[Path]:
    """The masks in the recipe's folder of them, by name; whether there is that folder is asked by who reads one."""
    return sorted((config.root / recipe.masks).glob("*.png")) if recipe.masks else []


def _said_of_masks(config: Config, recipe: Recipe, sources: Collection[str]) -> Iterator[Note]:
    """A word on pictures that have no mask, and on masks that no picture has."""
    if not recipe.masks or recipe.masks == masks.ALPHA:
        return
    drawn, stems = {path.stem for path in _masks(config, recipe)}, {Path(file).stem for file in sources}
    if bare := sorted(file for file in sources if Path(file).stem not in drawn):
        yield Note(
            f"{len(bare)} of {len(sources)} pictures have no mask in {recipe.masks} and are trained on as a whole; "
            f"the first is {visible(bare[0])}"
        )
    if stray := sorted(drawn - stems):
        yield Note(
            f"no picture is called as {len(stray)} of the masks in {recipe.masks}, first {visible(stray[0])}.png"
        )


def _findings(
    looked: Sequence[Looked],
    recipe: Recipe,
    records: Mapping[str, Provenance],
    captions: Mapping[str, bytes],
    *,
    features: NDArray[float32] | None = None,
) -> list[Finding]:
    pictures = [one.picture for one in looked]
    measured = partial(
        check,
        resolution=recipe.resolution,
        thresholds=recipe.checks,
        background_said=recipe.background is not None or recipe.masks == masks.ALPHA,
    )
    excluded = {one.file for one in recipe.exclude}

    def merit(i: int) -> tuple[bool, bool, int, str]:
        """Of two copies the first is the one that the other repeats: one that stays, then one with a caption by hand,
        then the larger, then by name."""
        file, size = pictures[i].file, pictures[i].width * pictures[i].height
        goes = file in excluded or any(_drops(f, recipe) for f in waive(measured([pictures[i]]), recipe.waive))
        return goes, Path(file).stem not in captions, -size, file

    order = sorted(range(len(pictures)), key=merit)
    in_order = None if features is None else features[order]
    return waive(measured([pictures[i] for i in order], provenance=records, features=in_order), recipe.waive)


def _drops(finding: Finding, recipe: Recipe) -> bool:
    return finding.check == "unreadable" or (finding.check in recipe.drop and not finding.waived)


def _dropped(
    findings: Iterable[Finding], recipe: Recipe, sources: Iterable[str], *, uncut: Collection[str] = ()
) -> list[Dropped]:
    """What is left out, in the order of ``sources``: excluded by hand, or for the first finding that drops, or because
    none of the crops could be made (``uncut``). Of duplicates the first stays that is itself kept."""
    out = {one.file: Dropped(one.file, one.reason, "excluded") for one in recipe.exclude}
    # what is said of a picture alone comes first: a copy of one that goes is no copy any more
    for f in sorted(findings, key=lambda f: bool(f.other)):
        if _drops(f, recipe) and f.file not in out and f.other not in out:
            out[f.file] = Dropped(f.file, str(f.value) if f.check == "unreadable" else f.why, f.check)
    for file in uncut:
        wanted = " and ".join(recipe.crops)
        out.setdefault(file, Dropped(file, f"it is too small, or shows too little, to cut {wanted} from it", "tiny"))
    return [out[file] for file in sources if file in out]


def _kept(
    looked: Sequence[Looked],
    dropped: Sequence[Dropped],
    findings: Sequence[Finding],
    recipe: Recipe,
    records: Mapping[str, Provenance],
    captions: Collection[str],
) -> list[_Kept]:
    """The training pictures that stay, in the order of their sources. Of a held-out picture one stays: the whole, or
    where no crop is "full", the first."""
    gone = {one.file for one in dropped}
    stay = [one for one in looked if one.picture.file not in gone]
    grouped = groups([one.picture.file for one in looked], findings, records, left_out=gone)
    held_out = choose_held_out([one.picture for one in stay], grouped, recipe.held_out)
    group_of = {file: name for name, files in grouped.items() for file in files}
    stems = {Path(one.picture.file).stem for one in looked}
    kept = []
    for one in stay:
        file, wanted = one.picture.file, list(one.made)
        if file in held_out:
            wanted = sorted(wanted, key=lambda made: made.cut.crop != "full")[:1]
        for made in wanted:
            stem = _caption_of(file, made, captions, stems)
            kept.append(_Kept(file, made, group_of[file], file in held_out, stem, one.picture.width))
    return kept


def _caption_of(file: str, made: Made, captions: Collection[str], stems: Collection[str]) -> str:
    """The stem of a training picture's hand caption: its own name's (a-jpg, where there are a.jpg and a.png), or else
    its source's and the crop (a.upper). What is another picture's own stem is no crop's."""
    crop, own = made.cut.crop, Path(made.file).stem
    if crop == "full":
        return own if own in captions else Path(file).stem
    shared = f"{Path(file).stem}.{crop}"
    free = [stem for stem in (own, shared) if stem not in stems]
    return next((stem for stem in free if stem in captions), free[0] if free else "")


def _unasked(kept: Sequence[_Kept], recipe: Recipe, sources: Iterable[str]) -> set[str]:
    """Stems of hand captions that need not be used: of pictures left out, of crops that this dataset does not make."""
    whole = {one.source for one in kept if one.held_out}
    trained = {one.source for one in kept} - whole
    unasked = set()
    for file in sources:
        for crop in _CROPS:
            if file not in trained or crop not in recipe.crops:
                unasked.add(Path(file).stem if crop == "full" else f"{Path(file).stem}.{crop}")
    return unasked - {one.stem for one in kept}


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
        upright=one.upright,
        boxed=made.cut.boxed,
        width=made.cut.size[0],
        height=made.cut.size[1],
        mask=made.mask,
        group=one.group,
        licence=records[one.source].licence if one.source in records else "",
        moved=() if one.held_out else made.moved,
    )


def _freeze(dataset: Dataset, config: Config, records: Mapping[str, Provenance]) -> None:
    """Write the tables and the card; take away the pictures that did not stay, and the log."""
    stays = {name for row in dataset.rows for view in row.views for name in (view.file, view.mask)}
    for path in (path for part in ("images", "masks", moved.FOLDER) for path in (dataset.path / part).glob("*")):
        if path.relative_to(dataset.path).as_posix() not in stays:
            path.unlink()
    (dataset.path / LOG).unlink(missing_ok=True)
    write_lines(dataset.path / "rows.jsonl", (row.table for row in dataset.rows))
    write_lines(dataset.path / "findings.jsonl", map(asdict, dataset.findings))
    write_lines(dataset.path / "dropped.jsonl", map(asdict, dataset.dropped))
    used = {row.source for row in dataset.rows}
    provenance.write(dataset.path, [record for file, record in records.items() if file in used])
    write_atomic(dataset.path / "card.md", card(dataset, config.project).encode())
