"""A new project: a folder with a commented vez.toml that runs as it stands once the pictures are in."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import tomlkit

from vez import config
from vez.dataset.imports import Imported
from vez.errors import ConfigError, VezError
from vez.kohya_config import pictures, write
from vez.kohya_config.carry import carry
from vez.kohya_config.read import Said, read
from vez.store import write_atomic

BASE: Final = "stable-diffusion-v1-5/stable-diffusion-v1-5"
RESOLUTION: Final = 512
ADVICE: Final = "README.md"
"""What an example says besides its vez.toml."""
_EXAMPLES: Final = Path(__file__).parent / "examples"

_TEMPLATE = """\
# vez: what to learn, from which pictures, in which settings. Every key is explained in docs/reference.md.
# The whole way: vez study first

[project]
base = {base}            # a hub id, a diffusers folder, or "tiny" (in the package: for trying vez out)
trigger = {trigger}      # the made-up word that will call the concept
noun = {noun}            # what kind of thing it is: stands beside the trigger word
describes = {describes}  # the concept in words that CLIP knows: what the scores ask for instead of the trigger word
# kind = "garment"         # or character, object, style: how vez's prompts are worded

# [collect]
# contact = "you@example.org"    # Wikimedia and Openverse ask who fetches pictures from them

# One table per version of the dataset. A picture is never changed. How a heap of pictures becomes a dataset:
#   vez collect · vez check · vez crop · vez caption · vez lint · vez diff (docs/dataset.md)
# A caption can be written by hand: <captions>/<picture's name>.txt.
[dataset.v1]
images = {images}
captions = "captions"
held_out = 4             # pictures kept from training: they judge likeness and over-fitting
resolution = {resolution}
# drop = ["unreadable", "exact-duplicate", "near-duplicate", "blurred", "tiny"]
# rules = [ {{ find = "a woman", replace = "a woman in {{trigger}} {{noun}}" }} ]

# One table per study: variants that differ in what you want to know, and in nothing else.
[study.first]
images_seen = 2000       # how much a run sees; or steps = …, or epochs = … with repeats = …
seeds = [0]              # more seeds: every variant is trained once per seed, and luck can be told from merit
validate_every = 100

[study.first.variant]
rank8 = {{ dataset = "v1", batch = 2, rank = 8 }}
rank32 = {{ dataset = "v1", batch = 2, rank = 32 }}

# What is drawn to compare them is vez's suite of prompts, with and without the trigger word: 200 pictures for each
# LoRA and for none (`vez study --plan` says how long that takes); profile = "quick" draws 16. Your own are added to it.
# [study.first.sampling]
# profile = "standard"      # or quick, thorough
# strengths = [0.6, 0.8, 1.0]
# checkpoints = "all"       # those that save_every kept
# [[study.first.prompts]]
# text = "a photo of {{trigger}} {{noun}} in the snow"
# context = "in the snow"
"""


def create(
    folder: Path,
    *,
    trigger: str,
    noun: str,
    describes: str,
    images: Path | None,
    base: str = BASE,
    resolution: int = RESOLUTION,
) -> Path:
    """Write ``folder``/vez.toml, and an empty images folder where none is named; returns the file.

    A picture folder inside the project is written relative to it, any other absolute. ``resolution`` is in pixels.
    Raises ConfigError where a vez.toml is there, the picture folder is not, or a value cannot stand in the file.
    """
    path = _free(folder, images)
    values = {
        "base": base,
        "trigger": trigger,
        "noun": noun,
        "describes": describes,
        "images": _as_written(images, folder) if images is not None else "images",
    }
    text = _TEMPLATE.format(
        resolution=resolution, **{key: json.dumps(v, ensure_ascii=False) for key, v in values.items()}
    )
    _write(path, text)
    (folder / "captions").mkdir(exist_ok=True)
    if images is None:
        (folder / "images").mkdir(exist_ok=True)
    return path


def examples() -> tuple[str, ...]:
    """The names of the examples in the package."""
    return tuple(sorted(path.name for path in _EXAMPLES.iterdir() if (path / "vez.toml").is_file()))


def create_from_example(
    folder: Path,
    name: str,
    *,
    words: Mapping[str, str | None],
    images: Path | None = None,
    resolution: int | None = None,
) -> Path:
    """Write ``folder``/vez.toml as an example has it, its advice beside it, and the folders that it names.

    ``words`` are of ``[project]``: those that are given stand in the file instead of the example's. Its comments stay.
    Raises ConfigError for an example that is not there, and as `create` does.
    """
    if name not in examples():
        raise ConfigError(f"there is no example {name!r}; there are {', '.join(examples())}")
    path = _free(folder, images)
    document = tomlkit.parse((_EXAMPLES / name / "vez.toml").read_text(encoding="utf-8"))
    project: Any = document["project"]
    for key, word in words.items():
        if word is not None:
            project[key] = word
    datasets: Any = document["dataset"]
    if images is not None and len(datasets) > 1:
        raise ConfigError(
            f"the example {name} has {len(datasets)} datasets; leave --images out, and fill {folder / 'images'}"
        )
    for dataset in datasets.values():
        if images is not None:
            dataset["images"] = _as_written(images, folder)
        if resolution is not None:
            dataset["resolution"] = resolution
    _write(path, tomlkit.dumps(document))
    advice = path.with_name(ADVICE)
    if not advice.exists():
        write_atomic(advice, (_EXAMPLES / name / "README.md").read_bytes())
    for dataset in config.load(path).dataset.values():
        for place in (dataset.images, dataset.captions):
            if place is not None and not place.is_absolute():
                (folder / place).mkdir(parents=True, exist_ok=True)
    return path


@dataclass(frozen=True)
class FromKohya:
    """A project made of kohya's files."""

    path: Path
    """Its vez.toml."""
    imported: tuple[Imported, ...]
    listed: tuple[str, ...]
    """What was not carried over and why, line by line; vez.toml ends with it, too."""

    def as_text(self) -> str:
        """What was imported and what was not carried over, for a terminal."""
        pictures = [replace(made, remarks=()).as_text() for made in self.imported]  # they are among the lines below
        return "\n".join([*pictures, *self.listed])


def create_from_kohya(
    folder: Path,
    file: Path,
    *,
    trigger: str | None = None,
    noun: str | None = None,
    describes: str | None = None,
    images: Path | None = None,
    base: str | None = None,
    resolution: int | None = None,
) -> FromKohya:
    """Write ``folder``/vez.toml as ``file`` says it: kohya's training or dataset config, its GUI's JSON, a saved LoRA.

    The pictures it names are copied into the project where they are on this machine, unless ``images`` names a folder.
    What is given goes before what the file says. Raises ConfigError and DataError; nothing is then left behind.
    """
    path = _free(folder, images)
    was_there = folder.exists()
    said = read(file)
    added: dict[str, Any] = {"pretrained_model_name_or_path": base, "resolution": resolution}
    said = replace(said, values={**said.values, **{key: of for key, of in added.items() if of is not None}})
    said, imported = pictures.bring(said, folder, wanted=images is None)
    try:
        whole = said.source != "dataset config"
        with_class = any(part.role == "class" for made in imported for part in made.parts)
        carried = carry(
            said.values, near=file, samples=said.samples, counted=said.counted, pictures=said.pictures,
            with_class=with_class, whole=whole,
        )  # fmt: skip
        carried.tables["project"].setdefault("base", BASE)
        carried.tables["project"] |= _words(said, {"trigger": trigger, "noun": noun, "describes": describes})
        place = _as_written(images, folder) if images is not None else f"images/{pictures.DATASET}"
        _write(path, write.toml(said, carried, name=pictures.DATASET, imported=imported, images=place))
    except VezError:
        pictures.take_back(imported, folder)
        if not was_there:
            with suppress(OSError):
                folder.rmdir()
        raise
    if not imported:
        for top in ("captions", "images") if images is None else ("captions",):
            (folder / top / pictures.DATASET).mkdir(parents=True, exist_ok=True)
    return FromKohya(path, imported, tuple(write.listed(said, carried, imported)))


def _words(said: Said, given: Mapping[str, str | None]) -> dict[str, str]:
    """Trigger word, class noun and description: what is given, else what the file tells. Raises ConfigError."""
    trigger, noun = given["trigger"] or said.trigger, given["noun"] or said.noun
    for name, word in (("trigger", trigger), ("noun", noun)):
        if not word:
            raise ConfigError(f"{said.path} does not tell the {name}; say it with --{name}")
    return {"trigger": trigger, "noun": noun, "describes": given["describes"] or noun}


def _free(folder: Path, images: Path | None) -> Path:
    """Where the new vez.toml goes. Raises ConfigError where one is there, or the picture folder is not."""
    path = folder / "vez.toml"
    if path.exists():
        raise ConfigError(f"{path} exists and is left as it is; edit it, or name another folder")
    if images is not None and not images.is_dir():
        raise ConfigError(f"there is no folder {images}; make it, or leave --images out and fill {folder / 'images'}")
    return path


def _write(path: Path, text: str) -> None:
    """Write a vez.toml that `vez.config.load` accepts, or none. Raises ConfigError."""
    write_atomic(path, text.encode())
    try:
        config.load(path)
    except ConfigError:
        path.unlink()  # what was asked for cannot be said in the file: leave nothing half made
        raise


def _as_written(images: Path, folder: Path) -> str:
    inside = images.resolve()
    root = folder.resolve()
    return inside.relative_to(root).as_posix() if inside.is_relative_to(root) else inside.as_posix()
