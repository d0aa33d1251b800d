"""stable-diffusion.cpp, which shares no code with diffusers or kohya, loads our files and draws what we would.

Needs the package stable-diffusion-cpp-python (compiled on install) beside the others; without it the tests skip.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from vez.files.bases import merge_into
from vez.files.names import known
from vez.files.reading import LoraFile
from vez.files.writing import write
from vez.interop import LoraWeights

client = pytest.importorskip("stable_diffusion_cpp", reason="stable-diffusion-cpp-python is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]
SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base in the sizes of SD 1.5 (the client knows no others), half precision, without tokenizer."""
    path = tmp_path_factory.mktemp("sd15")
    torch.manual_seed(0)
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
    for name, network, stem in (
        ("unet", unet, "diffusion_pytorch_model"),
        ("vae", vae, "diffusion_pytorch_model"),
        ("text_encoder", text, "model"),
    ):
        (path / name).mkdir()
        tensors = {key: random_weight(key, tensor) for key, tensor in network.state_dict().items()}
        if name == "text_encoder":  # the names of published bases
            tensors = {key if key.startswith("text_model.") else f"text_model.{key}": t for key, t in tensors.items()}
        save_file(tensors, path / name / f"{stem}.safetensors")
    return path


def random_weight(name: str, like: torch.Tensor) -> torch.Tensor:
    if like.dim() < 2:
        return torch.full(like.shape, float(name.endswith("weight")), dtype=torch.float16)
    spread = 0.02 if "embedding" in name and "linear" not in name else 1 / like[0].numel() ** 0.5
    return (torch.randn(like.shape) * spread).half()


@pytest.fixture(scope="module")
def lora(folder: Path) -> LoraFile:
    """Rank 4, alpha 2, on all 264 modules; large enough to be seen in 8 bits."""
    generator = torch.Generator().manual_seed(1)
    modules = {}
    for network, file in (("unet", "unet/diffusion_pytorch_model"), ("text", "text_encoder/model")):
        for key, weight in load_file(folder / f"{file}.safetensors").items():
            place = known(network, key.removesuffix(".weight"))  # type: ignore[arg-type]
            if place and key.endswith(".weight") and ("attentions" in key or "encoder.layers" in key):
                down = torch.randn(4, *weight.shape[1:], generator=generator) / weight.shape[1] ** 0.5
                up = torch.randn(weight.shape[0], 4, *weight.shape[2:], generator=generator) / 2
                modules[place] = LoraWeights(down, up, 2.0)
    assert len(modules) == 264
    return LoraFile(dict(sorted(modules.items())), {}, "sd1", "kohya", torch.float16)


def drawn(folder: Path, prompt: str = "a red coat") -> np.ndarray[Any, Any]:
    model = client.StableDiffusion(model_path=str(folder), n_threads=int(os.environ.get("OMP_NUM_THREADS", "1")))
    (image,) = model.generate_image(prompt=prompt, width=SIDE, height=SIDE, sample_steps=2, cfg_scale=3.0, seed=7)
    return np.asarray(image.convert("RGB")).astype(float)


def test_the_client_adds_our_lora_as_we_do(folder: Path, lora: LoraFile, tmp_path: Path) -> None:
    base = drawn(folder)
    assert base.std() > 5, "a picture without contrast would show nothing"
    merge_into(str(folder), [lora], [1.0], tmp_path / "merged")
    ours = drawn(tmp_path / "merged")
    move = np.sqrt(((ours - base) ** 2).mean())
    assert move > 10, "the LoRA must be seen"
    write(tmp_path / "lora.safetensors", lora, layout="kohya", dtype=torch.float16)
    theirs = drawn(folder, f"a red coat<lora:{tmp_path / 'lora'}.safetensors:1>")
    assert np.sqrt(((theirs - ours) ** 2).mean()) < 0.02 * move
