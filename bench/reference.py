"""The reference: a LoRA training loop of diffusers and peft, as their documentation has it, set up as well as we can.

What its examples leave on the table is given to it: the base in bfloat16 from the start, latents encoded beforehand,
no read of the loss but one a step, torch's fused AdamW, LoRA weights in fp32 under autocast (in bf16 AdamW loses small
updates), gradients set to None. Attention is torch's fused one (diffusers' default) or plain products, which are faster
in bfloat16 on some CPUs. It begins with the weights that vez's LoRA begins with.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from torch.nn import functional as F

from vez.base import Base
from vez.denoise import Batch
from vez.interop import base_keys
from vez.lora import LoraSpec, attach

LR_UNET, LR_TEXT, WEIGHT_DECAY, CLIP = 1e-4, 5e-5, 0.01, 1.0
UNET_MODULES = ["proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
TEXT_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


def reference(base: Base, rank: int, *, fused_attention: bool = True) -> Callable[[Batch], tuple[float, float]]:
    """A function from a batch to its loss and gradient norm, which trains one LoRA of this rank on both networks."""
    start = attach(base, [LoraSpec(rank, rank)], seed=0)
    state = start.state(0)
    start.detach()
    del start
    unet: Any = base.unet
    text_encoder: Any = base.text_encoder
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=UNET_MODULES))
    text_encoder.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TEXT_MODULES))
    cast_training_params([unet, text_encoder], dtype=torch.float32)
    if not fused_attention:
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    networks = {"unet": unet, "text": text_encoder}
    with torch.no_grad():
        for key, target in base_keys(base).items():
            layer: Any = networks[target.network].get_submodule(target.path)
            layer.lora_A["default"].weight.copy_(state[key].down.view_as(layer.lora_A["default"].weight))
            layer.lora_B["default"].weight.zero_()
    groups = [[p for p in network.parameters() if p.requires_grad] for network in (unet, text_encoder)]
    if sum(p.numel() for group in groups for p in group) != sum(w.down.numel() + w.up.numel() for w in state.values()):
        raise SystemExit("the reference does not train the same modules")
    rates = [{"params": groups[0], "lr": LR_UNET}, {"params": groups[1], "lr": LR_TEXT}]
    optimizer = torch.optim.AdamW(rates, weight_decay=WEIGHT_DECAY, fused=True)
    alphas = base.schedule.alphas_cumprod.to(base.device)
    half = base.dtype == torch.bfloat16

    def step(batch: Batch) -> tuple[float, float]:
        with torch.autocast(base.device.type, torch.bfloat16) if half else nullcontext():
            alpha = alphas[batch.timesteps].view(-1, 1, 1, 1)
            noisy = (alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise).to(base.dtype)
            text = text_encoder(input_ids=batch.tokens).last_hidden_state
            prediction = unet(noisy, batch.timesteps, encoder_hidden_states=text, return_dict=False)[0]
            loss = F.mse_loss(prediction.float(), batch.noise)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for group in groups for p in group], CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()), float(norm)

    return step
