"""Captioners of a few thin layers, made on the spot, in the layout of the published ones."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    BartTokenizer,
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    Florence2Config,
    Florence2ForConditionalGeneration,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
WORDS = [*SPECIAL, "a", "girl", "in", "folk", "costume", "standing", "on", "set", "of", "stairs"]


def write_blip(folder: Path) -> None:
    """A random BLIP of two thin layers, saved as the demo's is: model and tokenizer in one folder."""
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), bos_token="[DEC]")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **tower,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    config = BlipConfig(vision_config={**tower, "image_size": 32, "patch_size": 16}, text_config=text)
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


LEARNED = [
    "What does the image describe?",
    "Describe in detail what is shown in the image.",
    "a girl in a folk costume.",
]
FLORENCE_SIDE = 64


def tokenizer_in(folder: Path) -> BartTokenizer:
    """A byte-level BPE tokenizer with Florence-2's special tokens, its merges learned from three sentences."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    learned.train_from_iterator(LEARNED, trainer)
    model = json.loads(learned.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = BartTokenizer(vocab=model["vocab"], merges=merges, extra_special_tokens={"image_token": "<image>"})
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_florence(folder: Path) -> None:
    """A random Florence-2 of thin layers with a tokenizer of its own."""
    tokenizer = tokenizer_in(folder)
    text = BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
        init_std=0.5,
    )
    vision = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [8, 16],
        "num_heads": [1, 2],
        "num_groups": [1, 2],
        "window_size": 4,
        "projection_dim": 16,
        "initializer_range": 0.5,
    }
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=tokenizer.image_token_id)
    torch.manual_seed(0)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": dict.fromkeys(("height", "width"), FLORENCE_SIDE)})
    )


ROWS = [
    ("general", "9"),  # a rating: never a tag
    ("long_hair", "0"),
    ("red_dress", "0"),
    ("blue_sky", "0"),
    ("hatsune_miku", "4"),
    (">_<", "0"),
]
TAGGER_SIDE = 32


def write_tags(folder: Path, rows: list[tuple[str, str]] = ROWS) -> None:
    with open(folder / "selected_tags.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([i, name, category, 1] for i, (name, category) in enumerate(rows))


def write_model(folder: Path, *, side: int | str = TAGGER_SIDE, batch: int | str = "n") -> None:
    """A tagger of one layer: sigmoid of an affine map of the mean blue, green and red (0 to 255), in that order."""
    onnx = pytest.importorskip("onnx")
    outputs = len(ROWS)
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    weights = np.zeros((3, outputs), dtype=np.float32)
    for i, (channel, sign) in enumerate([(0, 1), (1, 1), (2, 1), (0, 1), (2, 1), (1, -1)]):
        weights[channel, i] = sign / 16
    bias = np.array([0, -8, -8, -8, -14, 4], dtype=np.float32)
    kept = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")]
    kept.append(numpy_helper.from_array(np.array([1, 2], dtype=np.int64), "axes"))
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["mapped"]),
        helper.make_node("Add", ["mapped", "b"], ["shifted"]),
        helper.make_node("Sigmoid", ["shifted"], ["output"]),
    ]
    float32 = onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("input", float32, [batch, side, side, 3])]
    made = [helper.make_tensor_value_info("output", float32, ["n", outputs])]
    graph = helper.make_graph(nodes, "tagger", inputs, made, kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.onnx")


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(count)]
