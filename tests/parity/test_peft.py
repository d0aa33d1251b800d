"""Training beside peft's LoRA in diffusers' and transformers' own networks: the same losses and gradients each step."""

import warnings
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel

from vez.base import Base, computing, load
from vez.bench.step import random_batch
from vez.bench.work import Workload
from vez.denoise import Batch, target, variant_losses
from vez.interop import LoraState, LoraWeights, base_keys
from vez.lora import LoraSpec, attach

STEPS, RANK, ALPHA = 3, 4, 2.0
WORK = Workload("tiny", 64, 2, (RANK,), "fp32", "cpu", STEPS)
UNET = ["proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


class Peft:
    """A U-Net and a text encoder with peft's LoRA, from a folder of diffusers' layout."""

    def __init__(self, folder: Path, base: Base, start: LoraState) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what the libraries say about themselves is not under test
            self.unet: Any = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", local_files_only=True)
            self.text: Any = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", local_files_only=True)
        networks = {"unet": (self.unet, UNET), "text": (self.text, TEXT)}
        for network, modules in networks.values():
            network.requires_grad_(False)
            network.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=modules))
        self.layers: dict[str, Any] = {
            key: networks[where.network][0].get_submodule(where.path) for key, where in base_keys(base).items()
        }
        for key, weights in start.items():
            for part, value in zip(self.parts(key), weights[:2], strict=True):
                part.data.copy_(value.view_as(part))
        self.trained = [p for network, _ in networks.values() for p in network.parameters() if p.requires_grad]
        self.base, self.optimizer = base, torch.optim.AdamW(self.trained, lr=1e-3)

    def parts(self, key: str) -> tuple[nn.Parameter, nn.Parameter]:
        """A module's down and up."""
        return self.layers[key].lora_A["default"].weight, self.layers[key].lora_B["default"].weight

    def state(self) -> LoraState:
        """The weights now, as vez has them."""
        both = {key: [part.detach().flatten(1).clone() for part in self.parts(key)] for key in self.layers}
        return {key: LoraWeights(down, up, ALPHA) for key, (down, up) in both.items()}

    def loss(self, batch: Batch) -> Tensor:
        """As diffusers' example of training has it."""
        schedule = self.base.schedule
        alpha = schedule.alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise
        text = self.text(input_ids=batch.tokens).last_hidden_state
        out = self.unet(noisy, batch.timesteps, encoder_hidden_states=text, return_dict=False)[0]
        return F.mse_loss(out, target(schedule, batch))


def apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_losses_and_gradients_of_every_step_are_pefts(random_base_folder: Path) -> None:
    base, generator = load(str(random_base_folder)), torch.Generator().manual_seed(1)
    lora = attach(base, [LoraSpec(RANK, ALPHA)], seed=0)
    start = {
        key: weights._replace(up=torch.randn(weights.up.shape, generator=generator) * 0.05)
        for key, weights in lora.state(0).items()  # ups of zero would hide the downs' gradients
    }
    theirs = Peft(random_base_folder, base, start)
    assert sum(p.numel() for p in theirs.trained) == sum(w.down.numel() + w.up.numel() for w in start.values())
    seen = []
    with computing(base, torch.float32, pixels=WORK.size):
        for step in range(STEPS):
            batch = random_batch(base, WORK, seed=step)
            lora.load_state(0, theirs.state())
            lora.grads.zero_()
            ours = variant_losses(base, batch, variants=1)
            ours.sum().backward()  # type: ignore[no-untyped-call]
            loss = theirs.loss(batch)
            loss.backward()
            assert apart(ours.detach()[0], loss.detach()) < 1e-5
            rows = lora.rows(lora.grads, 0)
            assert rows.keys() == theirs.layers.keys()
            for key, parts in rows.items():
                for part, own in zip(theirs.parts(key), parts, strict=True):
                    assert part.grad is not None and part.grad.norm() > 0, key
                    assert apart(own, part.grad.view_as(own)) < 1e-5, (step, key)
            seen.append(float(loss.detach()))
            theirs.optimizer.step()
            theirs.optimizer.zero_grad()
    lora.detach()
    assert len(set(seen)) == STEPS
