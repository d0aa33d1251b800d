"""Our files in diffusers' and peft's hands: the same weights and the same pictures as merged by us."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from vez.base import Base, load
from vez.interop import LoraState, base_keys, merge, save_kohya, to_bytes, to_diffusers
from vez.lora import LoraSpec, attach


@pytest.fixture(scope="module")
def own(random_base_folder: Path) -> Base:
    return load(str(random_base_folder))


@pytest.fixture
def state(own: Base) -> LoraState:
    lora = attach(own, [LoraSpec(4, 2.0)], seed=0)
    lora.detach()
    generator = torch.Generator().manual_seed(1)
    return {key: w._replace(up=torch.randn(w.up.shape, generator=generator) * 0.2) for key, w in lora.state(0).items()}


@pytest.fixture
def pipeline(random_base_folder: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library says about itself is not under test
        loaded = StableDiffusionPipeline.from_pretrained(random_base_folder, local_files_only=True)
        loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config)  # DDPM's draws noise at every step
        loaded.set_progress_bar_config(disable=True)
        yield loaded


def picture(pipeline: Any) -> np.ndarray[Any, Any]:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    out = pipeline("zolka, a girl", latents=noise, num_inference_steps=4, guidance_scale=3.0, output_type="np")
    pixels: np.ndarray[Any, Any] = out.images
    return pixels


def weights_of(base: Base, unet: torch.nn.Module, text_encoder: torch.nn.Module) -> dict[str, torch.Tensor]:
    networks = {"unet": unet, "text": text_encoder}
    return {
        key: networks[target.network].get_submodule(target.path).weight.detach().clone()  # type: ignore[operator]
        for key, target in base_keys(base).items()
    }


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_diffusers_loads_the_same_lora(layout: str, own: Base, state: LoraState, pipeline: Any, tmp_path: Path) -> None:
    before = weights_of(own, pipeline.unet, pipeline.text_encoder)
    base_picture = picture(pipeline)
    if layout == "kohya":
        save_kohya(tmp_path / "lora.safetensors", state, metadata={}, dtype=torch.float32)
    else:
        (tmp_path / "lora.safetensors").write_bytes(to_bytes(*to_diffusers(state, own.layout)))
    pipeline.load_lora_weights(tmp_path, weight_name="lora.safetensors", adapter_name="zolka")
    live = picture(pipeline)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after = weights_of(own, pipeline.unet, pipeline.text_encoder)
    for key, weights in state.items():
        change = after[key] - before[key]
        torch.testing.assert_close(change, weights.delta().view(change.shape), rtol=1e-4, atol=1e-6)
    undo = merge(own, state)
    try:
        pipeline.unet.load_state_dict(own.unet.state_dict())
        pipeline.text_encoder.load_state_dict(own.text_encoder.state_dict())
    finally:
        undo()
    ours = picture(pipeline)
    assert np.abs(ours - live).max() < 2e-3
    assert np.abs(ours - base_picture).max() > 2e-2, "the LoRA must be seen"
