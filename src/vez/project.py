"""A new project: a folder with a commented vez.toml that runs as it stands once the pictures are in."""

import json
from pathlib import Path

from vez import config
from vez.errors import ConfigError
from vez.store import write_atomic

_TEMPLATE = """\
# vez: what to learn, from which pictures, in which settings. Every key is explained in docs/reference.md.
# The whole way: vez study first

[project]
base = {base}            # a hub id, a diffusers folder, or "tiny" (in the package: for trying vez out)
trigger = {trigger}      # the made-up word that will call the concept
noun = {noun}            # what kind of thing it is: stands beside the trigger word
describes = {describes}  # the concept in words that CLIP knows: what the scores ask for instead of the trigger word

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

# What is drawn to compare them; without any, vez asks its own list of scenes, with and without the trigger word.
# [[study.first.prompts]]
# text = "a photo of {{trigger}} {{noun}} in the snow"
# role = "trigger"
# context = "in the snow"
# group = "snow"
"""


def create(
    folder: Path, *, trigger: str, noun: str, describes: str, images: Path | None, base: str, resolution: int
) -> Path:
    """Write ``folder``/vez.toml, and an empty images folder where none is named; returns the file.

    A picture folder inside the project is written relative to it, any other absolute. ``resolution`` is in pixels.
    Raises ConfigError where a vez.toml is there, the picture folder is not, or a value cannot stand in the file.
    """
    path = folder / "vez.toml"
    if path.exists():
        raise ConfigError(f"{path} exists and is left as it is; edit it, or name another folder")
    if images is not None and not images.is_dir():
        raise ConfigError(f"there is no folder {images}; make it, or leave --images out and fill {folder / 'images'}")
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
    write_atomic(path, text.encode())
    try:
        config.load(path)
    except ConfigError:
        path.unlink()  # what was asked for cannot be said in the file: leave nothing half made
        raise
    (folder / "captions").mkdir(exist_ok=True)
    if images is None:
        (folder / "images").mkdir(exist_ok=True)
    return path


def _as_written(images: Path, folder: Path) -> str:
    inside = images.resolve()
    root = folder.resolve()
    return inside.relative_to(root).as_posix() if inside.is_relative_to(root) else inside.as_posix()
