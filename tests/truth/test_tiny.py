"""The embedded base and the demo, held against what the world knows."""

import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from typer.testing import CliRunner

from vez import demo
from vez.base import Base, load, tiny_path
from vez.cli import app
from vez.config import Prompt, Sampling
from vez.demo import oracle
from vez.demo.world.garments import COSTUME
from vez.interop import save_kohya
from vez.lora import LoraSpec, attach
from vez.sample import sample
from vez.solver import noise

ASKED = {
    "a girl wearing a red dress, city street, sunny day": ("city street", "sunny", "dress", "red"),
    "a boy wearing a blue hoodie, forest, at night": ("forest", "night", "hoodie", "blue"),
    "a woman wearing a green skirt, beach, sunset": ("beach", "sunset", "skirt", "green"),
    "a man wearing a yellow coat, mountains, snow": ("mountains", "snow", "coat", "yellow"),
}


@pytest.fixture(scope="module")
def tiny() -> Base:
    return load("tiny")


def drawn(base: Base, texts: list[str], *, arm: Path | None, sampling: Sampling, into: Path) -> np.ndarray:
    prompts = [Prompt(text=text, id=f"p{i}", group=f"p{i}") for i, text in enumerate(texts)]
    for _ in sample(base, {"arm": arm}, prompts, sampling=sampling, into=into):
        pass
    files = [into / "arm" / f"p{i}-0.png" for i in range(len(texts))]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def test_tiny_draws_what_is_asked_and_no_costume(tiny: Base, tmp_path: Path) -> None:
    texts = [*ASKED, "nosnjaoutfit, a girl wearing a traditional folk costume, forest, sunny day"]
    pictures = drawn(tiny, texts, arm=None, sampling=Sampling(steps=12, cfg=5.0, seeds=1), into=tmp_path / "s")
    answers = oracle.ask(oracle.load(Path(demo.__file__).parent / "oracle"), pictures)
    right = [answer[q] == wanted[i] for answer, wanted in zip(answers, ASKED.values(), strict=False)
             for i, q in enumerate(oracle.ANSWERS)]  # fmt: skip
    assert sum(right) >= 14  # of 16
    assert answers[-1]["garment"] != COSTUME


def test_a_lora_on_tiny_gives_diffusers_the_same_picture(tiny: Base, tmp_path: Path) -> None:
    lora = attach(tiny, [LoraSpec(4, 2.0)], seed=0)
    lora.detach()
    generator = torch.Generator().manual_seed(1)
    state = {k: w._replace(up=torch.randn(w.up.shape, generator=generator) * 0.05) for k, w in lora.state(0).items()}
    file = tmp_path / "lora.safetensors"
    save_kohya(file, state, metadata={}, dtype=torch.float32)
    text, sampling = next(iter(ASKED)), Sampling(steps=8, cfg=4.0, seeds=1)
    ours = drawn(tiny, [text], arm=file, sampling=sampling, into=tmp_path / "with")[0]
    without = drawn(tiny, [text], arm=None, sampling=sampling, into=tmp_path / "without")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library says about itself is not under test
        pipe = StableDiffusionPipeline.from_pretrained(tiny_path(), local_files_only=True, torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, timestep_spacing="linspace")
        pipe.load_lora_weights(tmp_path, weight_name=file.name)
        out = pipe(text, latents=noise([0], 16, 16), num_inference_steps=8, guidance_scale=4.0,
                   output_type="np").images[0]  # fmt: skip
    assert np.abs(out * 255 - ours).max() <= 2
    assert np.abs(ours.astype(int) - without).max() > 20, "the LoRA must be seen"


def truth_of_the_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("truth", Path(__file__).parents[2] / "bench" / "truth.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_the_demo_learns_the_costume(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", str(tmp_path / "demo")])
    assert result.exit_code == 0, result.output
    shares = truth_of_the_bench().read(tmp_path / "demo" / "studies" / "nosnja" / "samples")
    best = max((arms["trigger"] for arm, arms in shares.items() if arm != "base"), key=lambda s: s["costume"])
    assert best["costume"] >= 0.80 and best["place"] >= 0.85
    assert shares["base"]["trigger"]["costume"] <= 0.05
    page = (tmp_path / "demo" / "studies" / "nosnja" / "report.html").read_text()
    assert "nosnjaoutfit" in page and "data:image/" in page
