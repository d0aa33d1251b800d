"""stable-diffusion.cpp, which shares no code with diffusers or kohya, loads our files and draws what we would.

Needs the package stable-diffusion-cpp-python (compiled on install) beside the others; without it the tests skip.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from full_size import write_folder
from vez.files.bases import merge_into
from vez.files.names import known
from vez.files.reading import LoraFile
from vez.files.writing import write
from vez.interop import LoraWeights

client = pytest.importorskip("stable_diffusion_cpp", reason="stable-diffusion-cpp-python is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]
SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A random base in the sizes of SD 1.5: the client knows no others."""
    path = write_folder("sd1", tmp_path_factory.mktemp("sd15"))
    yield path
    shutil.rmtree(path)  # gigabytes, which pytest would keep


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
