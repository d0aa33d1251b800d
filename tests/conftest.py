"""What tests share: a tiny random base of SD 1.x layout, a dataset on disk, one thread. The network is off."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ldm_files import KINDS, make_small, save_folder
from small import SIZE, fingerprint, make_dataset
from small_words import make_tokenizer
from vez import base as bases
from vez.base import Base
from vez.dataset import Dataset

torch.set_num_threads(1)


def make_base(folder: Path, *, prediction_type: str = "epsilon", linear_projection: bool = False) -> Path:
    """A random base in diffusers' layout: 64-pixel pictures, 8×8 latents, two levels; a step takes milliseconds."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(folder / "tokenizer")
    unet = UNet2DConditionModel(
        sample_size=SIZE // 8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
        norm_num_groups=8,
        use_linear_projection=linear_projection,
    )
    unet.save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    ).save_pretrained(folder / "vae")
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    ).save_pretrained(folder / "text_encoder")
    DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def random_base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random base of SD 1.x layout on disk; not to be changed."""
    return make_base(tmp_path_factory.mktemp("bases") / "random")


@pytest.fixture(scope="session")
def _loaded_random_base(random_base_folder: Path) -> Base:
    return bases.load(str(random_base_folder))


@pytest.fixture
def random_base(_loaded_random_base: Base) -> Iterator[Base]:
    """The same, loaded; a test must leave its weights and modules as they were."""
    base = _loaded_random_base
    before = fingerprint(base)
    yield base
    assert fingerprint(base) == before, "the test changed the shared base"


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small random base of each family ("sd1", "sd2", "sdxl") in diffusers' layout; not to be changed."""
    at = tmp_path_factory.mktemp("families")
    tokenizer = make_tokenizer(at / "tokenizer")
    return {kind: save_folder(make_small(kind, words=len(tokenizer)), at / kind, tokenizer) for kind in KINDS}


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six pictures to train on and two held out, 64×64."""
    return make_dataset(tmp_path_factory.mktemp("datasets") / "tiny")
