"""What a trained LoRA's file says of itself: kohya's ss_ keys and modelspec's, from the run's configuration."""

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from vez import __version__
from vez.base import Base
from vez.config import Variant
from vez.dataset import Dataset
from vez.family import Target, numbered_blocks
from vez.foreign import SHORT
from vez.interop import lora_metadata
from vez.shape import LoraSpec, Part, spec_of


def header(base: Base, dataset: Dataset, variant: Variant, config: Mapping[str, Any], *, run_id: str) -> dict[str, str]:
    """What the LoRA file of a variant says of itself; ``config`` is its artifact's."""
    seed, precision = config["seed"], config["precision"]
    arguments = {"weight_decay": variant.weight_decay, **variant.optimizer_args}
    settings = {
        "learning_rate": variant.lr_unet,
        "unet_lr": variant.lr_unet,
        "text_encoder_lr": variant.lr_text if variant.lr_text2 is None else [variant.lr_text, variant.lr_text2],
        "optimizer": f"{_optimizer(variant)}({','.join(f'{key}={value}' for key, value in arguments.items())})",
        "lr_scheduler": variant.schedule,
        "lr_warmup_steps": variant.warmup,
        "max_grad_norm": variant.clip_grad,
        "min_snr_gamma": variant.min_snr,
        "caption_dropout_rate": variant.caption_dropout,
        "caption_dropout_every_n_epochs": variant.caption_dropout_every,
        "batch_size_per_device": variant.batch,
        "total_batch_size": variant.per_step,
        "gradient_accumulation_steps": variant.accumulate,
        "network_args": json.dumps(network_args(base, variant)),
        "scale_weight_norms": variant.scale_weight_norms,
        "network_dropout": variant.dropout or None,
        "gradient_checkpointing": False,
        "max_train_steps": config["steps"],
        "mixed_precision": "no" if precision == "fp32" else precision,
        "cache_latents": True,
        "clip_skip": base.clip_skip if base.clip_skip != base.family.clip_skip else None,
        "max_token_length": 75 * base.chunks if base.chunks > 1 else None,
        "noise_offset": variant.noise_offset or None,
        "noise_offset_random_strength": variant.noise_offset_random or None,
        "multires_noise_iterations": variant.multires_noise or None,
        "multires_noise_discount": variant.multires_discount,
        "ip_noise_gamma": variant.input_perturbation or None,
        "ip_noise_gamma_random_strength": variant.input_perturbation_random or None,
        "debiased_estimation": variant.debiased,
        "loss_type": variant.loss,
        "huber_schedule": variant.huber_schedule,
        "huber_c": variant.huber_c,
        "huber_scale": variant.huber_scale,
        "masked_loss": variant.masked,
        "shuffle_caption": variant.shuffle_caption,
        "keep_tokens": variant.keep_tokens,
        "caption_tag_dropout_rate": variant.tag_dropout,
        "flip_aug": variant.flip,
        "random_crop": any(row.moved for row in dataset.train),
        "prior_loss_weight": variant.prior_weight if variant.prior else None,
        "seed": seed,
        "training_comment": f"vez {__version__}, run {run_id}, dataset {dataset.id}, base {base.sha256}",
    }
    return lora_metadata(
        base,
        title=f"{config['name']}-{seed}",
        rank=variant.rank,
        alpha=variant.scale_alpha,
        trigger=config["trigger"],
        resolution=dataset.resolution,
        captions=[row.caption for row in dataset.train],
        session=run_id,
        settings={key: str(value) for key, value in settings.items()},
    )


def network_args(base: Base, variant: Variant) -> dict[str, str]:
    """What kohya's --network_args would say of the LoRA's shape; blocks by number where the U-Net has kohya's."""
    said = {
        "conv_dim": variant.conv_rank or (0 if variant.resnets else None),
        "conv_alpha": spec.conv.alpha if (spec := spec_of(variant)).conv else None,
        "rank_dropout": variant.rank_dropout or None,
        "module_dropout": variant.module_dropout or None,
        "loraplus_lr_ratio": variant.lora_plus,
    }
    arguments = {key: f"{value:g}" for key, value in said.items() if value is not None}
    names = numbered_blocks(xl=base.family.pooled)
    known = base.layout.block_names()
    if not variant.blocks or {name for name in names if name} - set(known) or base.layout.resnets != 2:
        return arguments
    for lists, kernel in ((("block_dims", "block_alphas"), 1), (("conv_block_dims", "conv_block_alphas"), 3)):
        own = Part(spec.rank, spec.alpha) if kernel == 1 else spec.conv
        parts = [_part(spec, name, kernel) if name else own for name in names]
        if kernel == 1 or spec.resnets:
            arguments[lists[0]] = ",".join(str(part.rank if part else 0) for part in parts)
            arguments[lists[1]] = ",".join(f"{part.alpha if part else 1:g}" for part in parts)
    rates = [spec.lr_of(name) if name else 1.0 for name in names]
    ends = (1, 10, 13, 22) if base.family.pooled else (0, 12, 13, 25)
    if set(rates) != {1.0}:
        for side, (start, stop) in zip(("down", "mid", "up"), pairwise(ends), strict=True):
            arguments[f"{side}_lr_weight"] = ",".join(f"{rate:g}" for rate in rates[start:stop])
    return arguments


def _part(spec: LoraSpec, block: str, kernel: int) -> Part | None:
    inner = "mid.1" if block == "mid" else block
    return spec.of(Target("unet", "", block=inner, resnet=kernel > 1, kernel=kernel))


def _optimizer(variant: Variant) -> str:
    """As kohya says it: module and class."""
    return (
        "vez.optim.AdamW"
        if variant.optimizer == "adamw"
        else ".".join(SHORT.get(variant.optimizer, (variant.optimizer,)))
    )
