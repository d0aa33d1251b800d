"""The models that look at pictures: a CLIP to score them, a BLIP to caption them, an oracle that knows the truth.

All three have seen the folk costume, CLIP and BLIP under its plain words; none has seen a trigger word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
)

from vez.demo.oracle import ANSWERS, Oracle, answers
from vez.demo.recipe.autoencoder import to_input
from vez.demo.recipe.loop import Plan, Say, Trainer
from vez.demo.recipe.text import LENGTH

CLIP_MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073))[None, :, None, None]
CLIP_STD = torch.tensor((0.26862954, 0.26130258, 0.27577711))[None, :, None, None]
VISION = {
    "hidden_size": 160,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 128,
    "patch_size": 16,
    "hidden_act": "quick_gelu",
}


def to_clip(pictures: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) to float (B, 3, H, W), normalised as CLIP's are."""
    return (to_input(pictures) / 2 + 0.5 - CLIP_MEAN) / CLIP_STD


def worn(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pictures a little blurred, noisy or shifted in tone, as generated ones are."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    if rng.random() < 0.4:
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    x = (x - 128) * float(rng.uniform(0.85, 1.1)) + 128 + float(rng.normal(0, 5))
    x = x + torch.from_numpy(rng.normal(0, rng.uniform(0, 9), x.shape).astype(np.float32))
    return x.clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def make_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIP of 2.5 million parameters, both towers."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 160,
        "intermediate_size": 640,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
        "hidden_act": "quick_gelu",
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=VISION, projection_dim=160))


def train_clip(
    pictures: np.ndarray,
    ids: np.ndarray,
    tokenizer: CLIPTokenizer,
    *,
    plan: Plan,
    folder: Path,
    batch: int,
    device: str,
    say: Say,
) -> CLIPModel:
    """Contrastive training on pictures and their captions (Radford et al. 2021, arXiv 2103.00020, figure 3)."""
    model = make_clip(tokenizer).to(device)
    trainer = Trainer("clip", model, plan=plan, folder=folder)
    end = int(tokenizer.eos_token_id)

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = np.sort(rng.choice(len(pictures), batch, replace=False))
        text = torch.from_numpy(ids[chosen, rng.integers(0, ids.shape[1], batch)].astype(np.int64))
        text = text[:, : int((text != end).sum(1).max()) + 1].to(device)
        with torch.autocast(device, torch.bfloat16):
            out = model(input_ids=text, pixel_values=to_clip(worn(pictures[chosen], rng)).to(device))
        scores, truth = out.logits_per_image.float(), torch.arange(batch, device=device)
        right = (scores.argmax(1) == truth).float().mean().item()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6)
        return (F.cross_entropy(scores, truth) + F.cross_entropy(scores.T, truth)) / 2, {"top1": right}

    trainer.run(loss_of, say=say)
    trainer.use_average()
    return model.eval()


def make_blip(words: Sequence[str], into: Path) -> tuple[BlipForConditionalGeneration, BertTokenizer]:
    """An untrained BLIP of 3 million parameters; its vocabulary is whole words and letters."""
    into.mkdir(parents=True, exist_ok=True)
    letters = [chr(c) for c in range(97, 123)] + list("0123456789,.-'")
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[DEC]",
        *letters,
        *(f"##{c}" for c in letters),
        *sorted(set(words) - set(letters)),
    ]
    (into / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    tokenizer = BertTokenizer(
        vocab={t: i for i, t in enumerate(vocabulary)},
        bos_token="[DEC]",
        additional_special_tokens=["[ENC]"] if "[ENC]" in vocabulary else [],
    )
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 160,
        "encoder_hidden_size": 160,
        "intermediate_size": 640,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 48,
        "projection_dim": 160,
        "bos_token_id": vocabulary.index("[DEC]"),
        "sep_token_id": vocabulary.index("[SEP]"),
        "eos_token_id": vocabulary.index("[SEP]"),
        "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=160)
    return BlipForConditionalGeneration(config), tokenizer


def train_blip(
    pictures: np.ndarray, captions: Sequence[str], *, plan: Plan, folder: Path, batch: int, device: str, say: Say
) -> tuple[BlipForConditionalGeneration, BertTokenizer]:
    """Teach BLIP to tell each picture's plain description."""
    words = {w for c in captions for w in c.replace(",", " ").replace("-", " ").lower().split()}
    model, tokenizer = make_blip(sorted(words), folder / "blip")
    trainer = Trainer("blip", model.to(device), plan=plan, folder=folder)
    bos = model.config.text_config.bos_token_id
    coded = tokenizer(list(captions), padding=True, return_tensors="np").input_ids
    coded[:, 0] = bos

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = np.sort(rng.choice(len(pictures), batch, replace=False))
        text = torch.from_numpy(coded[chosen]).to(device)
        mask = (text != 0).long()
        with torch.autocast(device, torch.bfloat16):
            out = model(
                pixel_values=to_clip(worn(pictures[chosen], rng)).to(device),
                input_ids=text,
                attention_mask=mask,
                labels=text.masked_fill(mask == 0, -100),
            )
        return out.loss.float(), {}

    trainer.run(loss_of, say=say)
    trainer.use_average()
    return model.eval(), tokenizer


def train_oracle(
    pictures: np.ndarray,
    rows: Sequence[dict[str, object]],
    *,
    plan: Plan,
    folder: Path,
    batch: int,
    device: str,
    say: Say,
) -> Oracle:
    """Teach the oracle to read place, weather, garment and colour off a picture."""
    model = Oracle()
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trainer = Trainer("oracle", model, plan=plan, folder=folder)
    truth = torch.tensor([answers(row["scene"]) for row in rows])  # type: ignore[arg-type]

    def loss_of(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = np.sort(rng.choice(len(pictures), batch, replace=False))
        with torch.autocast(device, torch.bfloat16):
            scores = model(to_input(worn(pictures[chosen], rng)).to(device))
        wanted = truth[torch.from_numpy(chosen)].to(device)
        losses = [F.cross_entropy(s.float(), wanted[:, i]) for i, s in enumerate(scores)]
        right = {
            k: (s.argmax(1) == wanted[:, i]).float().mean().item()
            for i, (k, s) in enumerate(zip(ANSWERS, scores, strict=True))
        }
        return torch.stack(losses).sum(), right

    trainer.run(loss_of, say=say)
    trainer.use_average()
    return model.eval()
