"""The tokenizer and the base's text encoder: `CLIPTokenizer` and `CLIPTextModel` layout, 77 tokens."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from vez.demo.recipe.loop import Plan, Say, Trainer

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
WIDTH = 192
SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""How CLIP cuts text into words before BPE."""


def make_tokenizer(captions: Sequence[str], into: Path) -> CLIPTokenizer:
    """Train a byte-pair vocabulary in CLIP's layout: bytes, bytes that end a word, merges, the two specials."""
    raw = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=1100, min_frequency=2, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
        ),
    )
    merges = [
        tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in json.loads(raw.to_str())["model"]["merges"]
    ]
    tokens = alphabet + [a + "</w>" for a in alphabet]
    tokens += [t for t in dict.fromkeys(a + b for a, b in merges) if t not in set(tokens)] + [START, END]
    into.mkdir(parents=True, exist_ok=True)
    (into / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (into / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n")
    made = CLIPTokenizer(
        vocab=str(into / "vocab.json"), merges=str(into / "merges.txt"), model_max_length=LENGTH, pad_token=END
    )
    made.save_pretrained(into)
    return made


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of 2 million parameters."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=WIDTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.eos_token_id,
        )
    )


def nonsense(rng: random.Random) -> str:
    """A pronounceable word that means nothing, so that the base learns to pass over words it does not know."""
    return "".join(rng.choice("bdfgklmprtvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 4)))


def tokens(
    tokenizer: CLIPTokenizer, rows: Sequence[dict[str, object]], *, seed: int, strange: float = 0.0
) -> np.ndarray:
    """Token ids (pictures, captions, 77) int16; a share of the captions carries a nonsense word."""
    rng = random.Random(seed)
    texts: list[str] = []
    for row in rows:
        for text in row["captions"]:  # type: ignore[attr-defined]
            if rng.random() < strange:
                word = nonsense(rng)
                inside = text.replace(" wearing ", f" wearing {word} ")
                text = rng.choice((f"{word}, {text}", f"{text}, {word}", inside))
            texts.append(text)
    ids = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="np").input_ids
    return np.asarray(ids, np.int16).reshape(len(rows), -1, LENGTH)


FIELDS = ("view", "kind", "pose", "garment", "colour", "place", "weather", "hair", "style", "hat")
"""What the text encoder is first taught to tell from a caption."""


def field_labels(rows: Sequence[dict[str, object]]) -> tuple[np.ndarray, list[list[str]]]:
    """Class of every field for every row, (rows, fields), and the names of the classes."""
    flat = [{**row["scene"], **row["scene"]["person"]} for row in rows]  # type: ignore[index,dict-item]
    names = [sorted({str(f[field]) for f in flat}) for field in FIELDS]
    return np.array([[n.index(str(f[field])) for n, field in zip(names, FIELDS, strict=True)] for f in flat]), names


def teach_reading(
    encoder: CLIPTextModel,
    ids: np.ndarray,
    rows: Sequence[dict[str, object]],
    *,
    plan: Plan,
    folder: Path,
    batch: int,
    device: str,
    say: Say,
) -> CLIPTextModel:
    """Let the end token of a caption tell the scene's record, before any picture is seen: minutes instead of hours."""
    labels, names = field_labels(rows)
    heads = nn.Linear(WIDTH, sum(map(len, names)))
    model = nn.ModuleDict({"encoder": encoder, "heads": heads}).to(device)
    trainer = Trainer("reading", model, plan=plan, folder=folder)
    end = int(encoder.config.eos_token_id)

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(0, len(ids), batch)
        text = torch.from_numpy(ids[chosen, rng.integers(0, ids.shape[1], batch)].astype(np.int64)).to(device)
        text = text[:, : int((text != end).sum(1).max()) + 4]
        with torch.autocast(device, torch.bfloat16):
            hidden = encoder(text).last_hidden_state
        at = (text == end).int().argmax(1)
        last = torch.stack([hidden[torch.arange(batch), at], hidden[:, -1]])  # (2, B, width)
        scores = heads(last.float()).split([len(n) for n in names], -1)
        truth = torch.from_numpy(labels[chosen]).to(device)
        losses = [F.cross_entropy(s.flatten(0, 1), truth[:, i].repeat(2)) for i, s in enumerate(scores)]
        right = (scores[3][0].argmax(-1) == truth[:, 3]).float().mean().item()
        return torch.stack(losses).mean(), {"garment": right}

    trainer.run(loss_of, say=say)
    trainer.use_average()
    return encoder
