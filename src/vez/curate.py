"""The stages of the data as a project's file asks for them: look, build, caption, lint, compare.

Each is a generator of events that returns what it found. The work is done further down; here it is given the models
that the project names, where they are on this machine.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vez.config import Config
from vez.dataset import Dataset, build, inspect, load, read_sources, recipe_of
from vez.dataset.build import refuse_strangers
from vez.dataset.look import Look, faces_of, planned
from vez.dataset.spoken import caption_changes, say
from vez.errors import ConfigError, DataError
from vez.events import Done, Event, Item, Note, Stage
from vez.images import boxes
from vez.images.captioners import identity_of
from vez.images.captioners import load as load_captioner
from vez.images.decode import decode
from vez.images.findings import Finding
from vez.images.sheet import Block, arrange, block_of
from vez.images.wording import visible
from vez.ldm import TOKENIZER
from vez.store import write_atomic

# What brings torch is imported by the stage that needs it.
if TYPE_CHECKING:
    from vez.lint import Lint
    from vez.metrics.embed import Clip

ON_A_SHEET: Final = 200  # pictures: about fifteen thousand pixels down
_TOGETHER: Final = 32  # pictures that CLIP sees between two words on how far it is


def check(config: Config, name: str) -> Generator[Event, None, list[Finding]]:
    """The findings about a dataset's pictures, CLIP's view of them included where its weights are here."""
    features = yield from _features(config, name)
    return (yield from inspect(config, name, features=features))


def built(config: Config, name: str) -> Generator[Event, None, Dataset]:
    """The frozen dataset; it is built if it is not there yet. Raises as `vez.dataset.build` does."""
    folder: Path | None = None
    for event in build(config, name):
        if isinstance(event, Done):
            folder = event.artifact_path
        yield event
    if folder is None:
        raise DataError(f"the dataset {name} was not built")
    return load(folder)


def pair(config: Config, old: str, new: str) -> Generator[Event, None, tuple[Dataset, Dataset]]:
    """Two versions, built where they are not there yet. Raises ConfigError where they are one and the same.

    Both names are looked up before anything is built.
    """
    for name in (old, new):
        recipe_of(config, name)
    if old == new:
        raise ConfigError(f"{old!r} is compared with itself; name two datasets of {', '.join(config.dataset)}")
    before = yield from built(config, old)
    after = yield from built(config, new)
    return before, after


def captions(config: Config, name: str, *, compared: bool) -> Generator[Event, None, str]:
    """The captions of a dataset as text; ``compared``: each with what the machine said, word by word.

    For that the captioner is asked also where a caption is written by hand; what it says there goes nowhere else.
    """
    dataset = yield from built(config, name)
    if not compared:
        return "\n".join(f"{visible(row.file)}: {visible(row.caption)}" for row in dataset.rows)
    captioner = recipe_of(config, name).captioner
    unsaid = {row.sha256: dataset.path / row.file for row in dataset.rows if row.machine is None}
    yield Stage("caption", len(unsaid), "to compare with what is written by hand")
    said = yield from say(
        unsaid,
        captioner=lambda: load_captioner(captioner, base=config.project.base, root=config.root),
        cache=config.root / ".vez" / "captions",
        identity=identity_of(captioner, base=config.project.base, root=config.root),
    )
    return caption_changes([replace(row, machine=said.get(row.sha256, row.machine)) for row in dataset.rows])


def lint(config: Config, name: str, dataset: Dataset | None = None) -> Generator[Event, None, "Lint"]:
    """What is wrong with a dataset's captions and with the set as a whole; kept in `.vez/lints`."""
    from vez.lint import stage
    from vez.lint.tokens import tokens_of
    from vez.metrics import embed

    dataset = dataset or (yield from built(config, name))
    base = config.source(config.project.base)
    tokenizer = config.project.tokenizer or (TOKENIZER if Path(base).is_file() else base)
    into = config.root / ".vez" / "lints" / dataset.path.name
    cache, words = config.root / ".vez" / "vectors", tokens_of(config.source(tokenizer))
    known = embed.kept_sha256(embed.clip_for(config.project.base), cache)
    if known and (id := stage.made(config, name, dataset, into=into, clip=known, tokenizer=words)):
        yield Done(into, id)  # without loading a CLIP to find that out
        return stage.load(into)
    clip = _clip(config)
    yield from stage.lint(config, name, dataset, into=into, clip=clip, tokenizer=words, cache=cache)
    if clip is not None:
        embed.keep_sha256(clip, cache)
    return stage.load(into)


def sheet(config: Config, name: str, to: Path) -> Generator[Event, None, list[Path]]:
    """Write a contact sheet: where each picture of a dataset is cut, and what comes out. Nothing is built.

    What does not fit on a sheet goes on in <stem>-2.png beside it, and so on; returns all of them. Raises DataError
    where a box or a mask by hand does not fit its picture; a picture that cannot be read is left out with a Note.
    """
    recipe = recipe_of(config, name)
    folder = config.root / recipe.images
    by_hand, sources = boxes.read(folder), read_sources(folder)
    refuse_strangers(recipe, sources, by_hand)
    excluded = {one.file for one in recipe.exclude}
    files = [file for file in sources if file not in excluded]
    how = Look(recipe, config.root, by_hand, find_faces=faces_of(recipe, config.root))
    sheets: list[Path] = []
    blocks: list[Block] = []
    yield Stage("crop", len(files), name)
    for done, file in enumerate(files, start=1):
        picture = planned(how, file)
        if isinstance(picture, str):
            yield Note(f"left out {visible(file)}: {visible(picture)}")
        else:
            blocks.append(block_of(file, *picture))
        yield Item("crop", done, len(files))
        if len(blocks) == ON_A_SHEET or (done == len(files) and (blocks or not sheets)):
            sheets.append(_written(blocks, to.with_stem(f"{to.stem}-{len(sheets) + 1}") if sheets else to))
            blocks = []
    return sheets


def compare(config: Config, datasets: Mapping[str, Path], into: Path) -> Iterator[Event]:
    """Write ``into``/<old>-<new>.html for each dataset (name → folder) and the next."""
    from vez.report.changes import write

    for old, new in pairwise(datasets):
        page = write(load(datasets[old]), load(datasets[new]), into / f"{old}-{new}.html")
        yield Note(f"what changed from {old} to {new}: {page.relative_to(config.root)}")


def _written(blocks: list[Block], to: Path) -> Path:
    data = BytesIO()
    arrange(blocks).save(data, format="PNG")
    write_atomic(to, data.getvalue())
    return to


def _clip(config: Config) -> "Clip | None":
    """The CLIP that judges the base's pictures, if its weights are on this machine: no stage here downloads one."""
    from vez.metrics import embed

    source = embed.clip_for(config.project.base)
    return embed.load(source) if embed.at_hand(source) else None


def _features(config: Config, name: str) -> Generator[Event, None, NDArray[np.float32] | None]:
    """CLIP's vectors of a dataset's pictures, (N, D) in the order of `read_sources`; a zero where one is unreadable."""
    folder = config.root / recipe_of(config, name).images
    sources = list(read_sources(folder))
    clip = _clip(config)
    if clip is None:
        yield Note("CLIP's weights are not on this machine, so pictures of one scene are not looked for")
        return None
    from vez.metrics import embed

    readable: list[int] = []

    def pictures(start: int) -> Iterator[Image.Image]:
        for i, file in enumerate(sources[start : start + _TOGETHER], start=start):
            try:
                image = decode(folder / file)
            except DataError:
                continue
            readable.append(i)
            yield image

    found = []
    yield Stage("scenes", len(sources), name)
    for start in range(0, len(sources), _TOGETHER):
        found.append(embed.features_of(clip, pictures(start)))
        yield Item("scenes", min(start + _TOGETHER, len(sources)), len(sources))
    vectors = np.zeros((len(sources), found[0].shape[1]), dtype=np.float32)
    vectors[readable] = np.concatenate(found)
    return vectors
