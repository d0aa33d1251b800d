"""A tiny random CLIP and a tiny random DINOv2, made on the spot: 32- and 28-pixel pictures, texts of 12 tokens."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, Dinov2Config, Dinov2Model

from vez.metrics import embed
from vez.metrics.embed import Clip, Dino


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it lies; not to be changed."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = size | {"vocab_size": len(vocabulary), "max_position_embeddings": 12, "bos_token_id": end - 1}
    text |= {"eos_token_id": end, "pad_token_id": end}
    vision = size | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(1)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(clip_folder: Path) -> Clip:
    """It, loaded."""
    return embed.load(str(clip_folder))


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it lies; not to be changed."""
    folder = tmp_path_factory.mktemp("dino")
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7)
    torch.manual_seed(1)
    Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dino(dino_folder: Path) -> Dino:
    """It, loaded."""
    return embed.load_dino(str(dino_folder))
