"""What a project names and a study loads: its base, the CLIP that scores, who else judges."""

from pathlib import Path
from typing import TYPE_CHECKING

from vez.config import Config
from vez.dataset import read_sources

# What brings torch is imported where it is needed: planning and building answer at once.
if TYPE_CHECKING:
    from vez.base import Base
    from vez.config import Study
    from vez.metrics.embed import Dino


def load_base(config: Config, device: str, *, study: "Study | None" = None) -> "Base":
    """The project's base in fp32, to draw; for a ``study``'s training as it computes and keeps weights there, once."""
    from vez.base import load
    from vez.device import choose
    from vez.preflight import DTYPES

    project = config.project
    return load(
        config.source(project.base),
        device=choose(device),
        dtype=DTYPES["fp32" if study is None else study.precision],
        quantize="none" if study is None else study.quantize,
        vae=project.vae and config.source(project.vae),
        tokenizer=project.tokenizer and config.source(project.tokenizer),
        prediction="v_prediction" if project.prediction == "v" else project.prediction,
        clip_skip=project.clip_skip,
        tokens=project.tokens,
    )


def others(config: Config, name: str, *, device: str) -> "tuple[Dino | None, list[Path]]":
    """Who judges besides CLIP, and the pictures of look-alikes, where there are any.

    Raises BaseModelError or DataError for what is named and cannot be had.
    """
    source, folder = config.study[name].dino, config.project.gallery
    gallery = [] if folder is None else [config.root / folder / file for file in read_sources(config.root / folder)]
    if source is None:
        return None, gallery
    from vez.metrics.embed import load_dino

    return load_dino(config.source(source), device=device), gallery


def clip_source(config: Config, name: str) -> str:
    """The CLIP that the study names, a folder relative to vez.toml; else the base's own."""
    from vez.metrics.embed import clip_for

    clip = config.study[name].clip
    if clip is None:
        return clip_for(config.project.base)
    return str(config.root / clip) if (config.root / clip).is_dir() else clip
