"""Small Stable Diffusions of each family, and a single LDM file written of one: what CompVis' code would have saved.

The names are written out block by block, not by the tables under test.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

Kind = Literal["sd1", "sd2", "sdxl"]
KINDS: tuple[Kind, ...] = ("sd1", "sd2", "sdxl")
_UNET: dict[Kind, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 64, "attention_head_dim": 8},
    "sd2": {"cross_attention_dim": 128, "attention_head_dim": [1, 2], "use_linear_projection": True},
    "sdxl": {
        "cross_attention_dim": 192,
        "attention_head_dim": [1, 2],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 96 + 6 * 32,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2],
    },
}
_BLOCKS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}


@dataclass(frozen=True)
class Small:
    """The networks of a small base; SDXL's has two text encoders."""

    kind: Kind
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    texts: tuple[Any, ...]


def text_config(words: int, width: int, layers: int, act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=77,
        hidden_act=act,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
        projection_dim=96,
    )


@cache
def make_small(kind: Kind, *, words: int) -> Small:
    """Random networks of the family's build, not to be changed; start and end are the last two of ``words`` tokens."""
    torch.manual_seed(3)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(64, 128), layers_per_block=2, **{**_BLOCKS, **_UNET[kind]}
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.13025 if kind == "sdxl" else 0.18215,
    )
    texts: tuple[Any, ...] = (CLIPTextModel(text_config(words, 64, 3, "quick_gelu")),)
    if kind == "sd2":
        texts = (CLIPTextModel(text_config(words, 128, 3, "gelu")),)
    if kind == "sdxl":
        texts = (*texts, CLIPTextModelWithProjection(text_config(words, 128, 4, "gelu")))
    for network in (unet, vae, *texts):
        network.eval().requires_grad_(False)
    return Small(kind, unet, vae, texts)


def save_folder(small: Small, folder: Path, tokenizer: Any, **schedule: Any) -> Path:
    """The base in diffusers' layout."""
    small.unet.save_pretrained(folder / "unet")
    small.vae.save_pretrained(folder / "vae")
    for n, encoder in enumerate(small.texts):
        end = "" if n == 0 else "_2"
        encoder.save_pretrained(folder / f"text_encoder{end}")
        tokenizer.pad_token = "!" if n == 1 or small.kind == "sd2" else "<|endoftext|>"
        tokenizer.save_pretrained(folder / f"tokenizer{end}")
        (folder / f"tokenizer{end}" / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDPMScheduler(**betas, **schedule).save_pretrained(folder / "scheduler")
    return folder


def ldm_tensors(small: Small) -> dict[str, Tensor]:
    """All tensors of the single file."""
    out = {f"model.diffusion_model.{name}": value for name, value in unet_tensors(small.unet).items()}
    out |= {f"first_stage_model.{name}": value for name, value in vae_tensors(small.vae).items()}
    if small.kind == "sd2":
        out |= open_clip_tensors(small.texts[0], "cond_stage_model.model.", extra_layer=True)
    else:
        prefix = "cond_stage_model.transformer." if small.kind == "sd1" else "conditioner.embedders.0.transformer."
        out |= {f"{prefix}text_model.{name}": value for name, value in small.texts[0].state_dict().items()}
    if small.kind == "sdxl":
        out |= open_clip_tensors(small.texts[1], "conditioner.embedders.1.model.")
    out["model_ema.decay"] = torch.tensor(0.9)  # what full checkpoints carry besides
    return out


def write_single(small: Small, path: Path, *, half: bool = False, metadata: Mapping[str, str] | None = None) -> Path:
    tensors = {name: (value.half() if half else value).contiguous() for name, value in ldm_tensors(small).items()}
    save_file(tensors, path, metadata=dict(metadata or {}))
    return path


def module_tensors(module: nn.Module, prefix: str, names: Mapping[str, str]) -> dict[str, Tensor]:
    """A module's tensors with parts of their names replaced, whole parts only."""
    out = {}
    for name, value in module.state_dict().items():
        path, _, end = name.rpartition(".")
        parts = (prefix.rstrip("."), names.get(path, path), end)
        out[".".join(part for part in parts if part)] = value
    return out


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_tensors(unet: Any) -> dict[str, Tensor]:
    """Walked in the order in which openaimodel.py builds its blocks."""
    out = module_tensors(unet.conv_in, "input_blocks.0.0", {})
    n = 1
    for block in unet.down_blocks:
        for j, resnet in enumerate(block.resnets):
            out |= module_tensors(resnet, f"input_blocks.{n}.0.", RESNET)
            if hasattr(block, "attentions"):
                out |= module_tensors(block.attentions[j], f"input_blocks.{n}.1.", {})
            n += 1
        if block.downsamplers:
            out |= module_tensors(block.downsamplers[0], f"input_blocks.{n}.0.", {"conv": "op"})
            n += 1
    for j, module in enumerate((unet.mid_block.resnets[0], unet.mid_block.attentions[0], unet.mid_block.resnets[1])):
        out |= module_tensors(module, f"middle_block.{j}.", RESNET if j != 1 else {})
    n = 0
    for block in unet.up_blocks:
        for j, resnet in enumerate(block.resnets):
            out |= module_tensors(resnet, f"output_blocks.{n}.0.", RESNET)
            place = 1
            if hasattr(block, "attentions"):
                out |= module_tensors(block.attentions[j], f"output_blocks.{n}.1.", {})
                place = 2
            if block.upsamplers and j == len(block.resnets) - 1:
                out |= module_tensors(block.upsamplers[0], f"output_blocks.{n}.{place}.", {})
            n += 1
    out |= module_tensors(unet.time_embedding, "time_embed.", {"linear_1": "0", "linear_2": "2"})
    if getattr(unet, "add_embedding", None) is not None:
        out |= module_tensors(unet.add_embedding, "label_emb.0.", {"linear_1": "0", "linear_2": "2"})
    out |= module_tensors(unet.conv_norm_out, "out.0", {})
    return out | module_tensors(unet.conv_out, "out.2", {})


def vae_tensors(vae: Any) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    short = {"conv_shortcut": "nin_shortcut"}
    for side, coder, way in (("encoder", vae.encoder, "down"), ("decoder", vae.decoder, "up")):
        for name in ("conv_in", "conv_out"):
            out |= module_tensors(getattr(coder, name), f"{side}.{name}", {})
        out |= module_tensors(coder.conv_norm_out, f"{side}.norm_out", {})
        blocks = list(getattr(coder, f"{way}_blocks"))
        for i, block in enumerate(blocks):
            level = i if way == "down" else len(blocks) - 1 - i
            for j, resnet in enumerate(block.resnets):
                out |= module_tensors(resnet, f"{side}.{way}.{level}.block.{j}.", short)
            samplers = getattr(block, f"{way}samplers", None)
            if samplers:
                out |= module_tensors(samplers[0], f"{side}.{way}.{level}.{way}sample.", {})
        mid = coder.mid_block
        out |= module_tensors(mid.resnets[0], f"{side}.mid.block_1.", short)
        out |= module_tensors(mid.resnets[1], f"{side}.mid.block_2.", short)
        names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
        for name, value in module_tensors(mid.attentions[0], f"{side}.mid.attn_1.", names).items():
            out[name] = value[:, :, None, None] if value.dim() == 2 else value
    out |= module_tensors(vae.quant_conv, "quant_conv", {})
    return out | module_tensors(vae.post_quant_conv, "post_quant_conv", {})


def open_clip_tensors(encoder: Any, prefix: str, *, extra_layer: bool = False) -> dict[str, Tensor]:
    inner = getattr(encoder, "text_model", encoder)
    out = {
        "positional_embedding": inner.embeddings.position_embedding.weight,
        "token_embedding.weight": inner.embeddings.token_embedding.weight,
        "ln_final.weight": inner.final_layer_norm.weight,
        "ln_final.bias": inner.final_layer_norm.bias,
        "logit_scale": torch.tensor(4.6),
    }
    if hasattr(encoder, "text_projection"):
        out["text_projection"] = encoder.text_projection.weight.T
    layers = list(inner.encoder.layers)
    for i, layer in enumerate([*layers, layers[-1]] if extra_layer else layers):
        block, attention = f"transformer.resblocks.{i}.", layer.self_attn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        out[f"{block}attn.in_proj_weight"] = torch.cat([p.weight for p in projections])
        out[f"{block}attn.in_proj_bias"] = torch.cat([p.bias for p in projections])
        for name, module in (
            ("attn.out_proj", attention.out_proj),
            ("ln_1", layer.layer_norm1),
            ("ln_2", layer.layer_norm2),
            ("mlp.c_fc", layer.mlp.fc1),
            ("mlp.c_proj", layer.mlp.fc2),
        ):
            out |= {f"{block}{name}.weight": module.weight, f"{block}{name}.bias": module.bias}
    return {prefix + name: value.detach().clone() for name, value in out.items()}
