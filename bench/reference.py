"""The reference: a LoRA training loop of diffusers and peft, as their documentation has it, set up as well as we can.

What its examples leave on the table is given to it: the base in bfloat16 from the start, latents encoded beforehand,
no read of the loss but one a step, torch's fused AdamW, LoRA weights in fp32 under autocast (in bf16 AdamW loses small
updates), gradients set to None. Attention is torch's fused one (diffusers' default) or plain products, and convolutions
are laid out channels first or last: whichever is faster on a machine is its best setting. It begins with the weights
that vez's LoRA begins with. `Setting` takes its parts away again, down to the loop of the examples, for the ladder.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional as F

from networks import text_of, unet_of, vae_of
from vez.base import Base
from vez.denoise import Batch
from vez.interop import LoraState, base_keys
from vez.lora import LoraSpec, attach

LR_UNET, LR_TEXT, WEIGHT_DECAY, CLIP = 1e-4, 5e-5, 0.01, 1.0
UNET_MODULES = ["proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
TEXT_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


@dataclass(frozen=True)
class Setting:
    """How the loop is set up; as it stands, the reference with fused attention."""

    fused_attention: bool = True
    channels_last: bool = False
    encodes: bool = False
    """The VAE encodes the pictures at every step, as in the examples."""
    fused_adam: bool = True
    flat: bool = False
    """Parameters and gradients lie in one buffer for each learning rate."""
    compiled: bool = False
    """diffusers' own regional compilation."""


def reference(
    base: Base, rank: int, setting: Setting = Setting(), *, pixels: int = 0
) -> Callable[[Batch], tuple[float, float]]:
    """A function from a batch to its loss and gradient norm, which trains one LoRA of this rank on both networks."""
    start = attach(base, [LoraSpec(rank, rank)], seed=0)
    state = start.state(0)
    start.detach()
    del start
    unet, text_encoder = unet_of(base), text_of(base)
    vae = vae_of(base) if setting.encodes else None
    _let_go(base)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=UNET_MODULES))
    text_encoder.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TEXT_MODULES))
    cast_training_params([unet, text_encoder], dtype=torch.float32)
    _set(unet, text_encoder, setting)
    groups = _weights(base, {"unet": unet, "text": text_encoder}, state)
    optimizer = _optimizer(groups, setting)
    every = [p for group in groups for p in group]
    alphas = base.schedule.alphas_cumprod.to(base.device)
    half = base.dtype == torch.bfloat16

    def step(batch: Batch) -> tuple[float, float]:
        if vae is not None:  # its work is done; what all arms are given is trained on
            with torch.no_grad():
                pictures = torch.zeros(len(batch.latents), 3, pixels, pixels, device=base.device, dtype=base.dtype)
                vae.encode(pictures).latent_dist.sample()
        with torch.autocast(base.device.type, torch.bfloat16) if half else nullcontext():
            alpha = alphas[batch.timesteps].view(-1, 1, 1, 1)
            noisy = (alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise).to(base.dtype)
            if setting.channels_last:
                noisy = noisy.contiguous(memory_format=torch.channels_last)
            text = text_encoder(input_ids=batch.tokens).last_hidden_state
            prediction = unet(noisy, batch.timesteps, encoder_hidden_states=text, return_dict=False)[0]
            loss = F.mse_loss(prediction.float(), batch.noise)
        loss.backward()
        norm = optimizer(every)
        return float(loss.detach()), float(norm)

    return step


def _let_go(base: Base) -> None:
    """vez's networks hold no weights any more: where an arm lays them out anew, the old ones go."""
    for network in (base.unet, *base.text_encoders):
        for parameter in network.parameters():
            parameter.data = parameter.data.new_empty(0)


def _set(unet: Any, text_encoder: Any, setting: Setting) -> None:
    if not setting.fused_attention:
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    if setting.channels_last:
        unet.to(memory_format=torch.channels_last)
    if setting.compiled:
        unet.compile_repeated_blocks(fullgraph=True)


def _weights(base: Base, networks: dict[str, Any], state: LoraState) -> list[list[nn.Parameter]]:
    """Give the adapters vez's first weights; the trained parameters of U-Net and text encoder."""
    with torch.no_grad():
        for key, target in base_keys(base).items():
            layer: Any = networks[target.network].get_submodule(target.path)
            layer.lora_A["default"].weight.copy_(state[key].down.view_as(layer.lora_A["default"].weight))
            layer.lora_B["default"].weight.zero_()
    groups = [[p for p in network.parameters() if p.requires_grad] for network in networks.values()]
    if sum(p.numel() for group in groups for p in group) != sum(w.down.numel() + w.up.numel() for w in state.values()):
        raise SystemExit("the reference does not train the same modules")
    return groups


def _optimizer(groups: Sequence[list[nn.Parameter]], setting: Setting) -> Callable[[list[nn.Parameter]], Tensor]:
    """Clips, updates, lets the gradients go; returns their norm."""
    own = [_flat(group) for group in groups] if setting.flat else groups
    rates = [{"params": own[0], "lr": LR_UNET}, {"params": own[1], "lr": LR_TEXT}]
    adam = torch.optim.AdamW(rates, weight_decay=WEIGHT_DECAY, fused=True if setting.fused_adam else None)

    def update(every: list[nn.Parameter]) -> Tensor:
        some = [p for group in own for p in group] if setting.flat else every
        norm = torch.nn.utils.clip_grad_norm_(some, CLIP)
        adam.step()
        adam.zero_grad(set_to_none=not setting.flat)
        return norm

    return update


def _flat(group: list[nn.Parameter]) -> list[nn.Parameter]:
    """One parameter whose memory and gradient the group's are views of."""
    whole = nn.Parameter(torch.cat([p.detach().flatten() for p in group]))
    whole.grad = torch.zeros_like(whole)
    at = 0
    for p in group:
        end = at + p.numel()
        p.data = whole.detach()[at:end].view_as(p)
        p.grad = whole.grad[at:end].view_as(p)
        at = end
    return [whole]
