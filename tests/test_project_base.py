"""The base as vez.toml asks for it: each key of [project] that is about it reaches the base, and is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from ldm_files import make_small, write_single
from small import TRIGGER
from small_words import make_tokenizer
from vez import config as configs
from vez import plan as planning
from vez import study
from vez.dataset import Dataset
from vez.errors import BaseModelError, ConfigError
from vez.events import Note

TOML = """
[project]
trigger = "{trigger}"
noun = "doll"
describes = "a doll"
{project}

[dataset.d]
images = "images"
resolution = 64

[study.s]
steps = 1
[study.s.variant.v]
dataset = "d"
rank = 1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with single files of two families, CLIP's tokenizer and a VAE beside vez.toml."""
    made = tmp_path_factory.mktemp("project")
    tokenizer = make_tokenizer(made / "words")
    for kind in ("sd2", "sdxl"):
        small = make_small(kind, words=len(tokenizer))  # type: ignore[arg-type]
        write_single(small, made / f"{kind}.safetensors")
    make_small("sd2", words=len(tokenizer)).vae.save_pretrained(made / "other-vae")
    return made


def said(folder: Path, dataset: Dataset, **project: Any) -> str:
    """The first word of a study's training: the base as it was found."""
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in project.items())
    (folder / "vez.toml").write_text(TOML.format(trigger=TRIGGER, project=lines))
    config = configs.load(folder / "vez.toml")
    first = next(iter(study.train_runs(config, "s", datasets={"d": dataset.path})))
    assert isinstance(first, Note)
    return first.text


def test_the_base_is_said_and_every_key_reaches_it(folder: Path, tiny_dataset: Dataset) -> None:
    file = {"base": "sd2.safetensors", "tokenizer": "words"}
    plain = said(folder, tiny_dataset, **file, prediction="epsilon")
    assert "small base of SD 1.x layout, predicts epsilon, 512 px, 75 tokens, as [project] prediction says" in plain
    assert "predicts v" in said(folder, tiny_dataset, **file, prediction="v")
    assert "clip skip 2" in said(folder, tiny_dataset, **file, prediction="v", clip_skip=2)
    assert "150 tokens" in said(folder, tiny_dataset, **file, prediction="v", tokens=150)
    assert "other-vae" in said(folder, tiny_dataset, **file, prediction="v", vae="other-vae")
    xl = said(folder, tiny_dataset, base="sdxl.safetensors", tokenizer="words")
    assert "small base of SDXL layout, predicts epsilon, 1024 px" in xl


def test_the_plan_says_the_family_by_the_files_header(folder: Path) -> None:
    (folder / "vez.toml").write_text(TOML.format(trigger=TRIGGER, project='base = "sdxl.safetensors"'))
    config = configs.load(folder / "vez.toml")
    cost = planning.cost_of(folder / "sdxl.safetensors")
    made = planning.plan(config, "s", pictures={"d": 8}, cost=cost, rates={}, device="cpu")
    assert "base sdxl.safetensors: a small base of SDXL layout" in made.text() and not made.assumed
    elsewhere = planning.plan(config, "s", pictures={"d": 8}, cost=planning.cost_of(None), rates={}, device="cpu")
    assert "base sdxl.safetensors\n" in elsewhere.text(), "what is not known is not said"


def test_a_hub_id_that_was_fetched_before_needs_no_network(
    folder: Path,
    tiny_dataset: Dataset,
    family_folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the hub's client keeps it: refs/main names the commit whose folder of links is the base."""
    kept = tmp_path / "models--someone--some-xl"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0a1b2c")
    (kept / "snapshots").mkdir()
    (kept / "snapshots" / "0a1b2c").symlink_to(family_folders["sdxl"], target_is_directory=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    text = said(folder, tiny_dataset, base="someone/some-xl")
    assert "small base of SDXL layout" in text and "someone/some-xl" in text
    known = study.sizes(configs.load(folder / "vez.toml"))
    assert not known.assumed and len(known.texts) == 2, "the plan too looks into the hub's cache"
    with pytest.raises(BaseModelError, match="'someone/another' is neither a folder here nor to be had from the hub"):
        said(folder, tiny_dataset, base="someone/another")


def test_what_is_missing_or_wrong_is_said(folder: Path, tiny_dataset: Dataset) -> None:
    with pytest.raises(BaseModelError, match="set tokenizer in"):
        said(folder, tiny_dataset, base="sdxl.safetensors")
    with pytest.raises(BaseModelError, match=r"scales its latents by 0\.18215"):
        said(folder, tiny_dataset, base="sdxl.safetensors", tokenizer="words", vae="other-vae")
    with pytest.raises(ConfigError, match="75, 150 or 225"):
        said(folder, tiny_dataset, base="tiny", tokens=100)
    with pytest.raises(ConfigError, match="prediction"):
        said(folder, tiny_dataset, base="tiny", prediction="x")
