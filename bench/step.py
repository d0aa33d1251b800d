"""How long a training step takes: vez with one and with four variants, beside a plain diffusers + peft loop.

    python bench/step.py [--base tiny] [--batch 4] [--rank 8] [--rounds 7] [--steps 3]

All three do the same work, and the script refuses to report otherwise: they begin with the same LoRA weights, see the
same latents, noise, timesteps and token ids, and must come to the same losses (relative 1e-3) at every step. V = 4 is
four variants (two ranks) in one pass; it is compared with four steps of the plain loop, one for each variant.

Rounds alternate between the contenders, so that a machine that slows down slows all of them; medians and the spread are
printed.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import LoraConfig
from torch.nn import functional as F

from networks import text_of, unet_of
from vez.base import Base, load
from vez.denoise import Batch, variant_losses
from vez.interop import base_keys
from vez.lora import LoraSpec, attach
from vez.optim import AdamW, Rates

LR_UNET, LR_TEXT, WEIGHT_DECAY, CLIP = 1e-4, 5e-5, 0.01, 1.0
UNET_MODULES = ["proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
TEXT_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
TOLERANCE = 1e-3


def inputs(base: Base, *, batch: int, steps: int) -> list[Batch]:
    """One batch per step: random latents, noise, timesteps and token ids, the same for every contender."""
    generator = torch.Generator().manual_seed(0)
    side = base.size // base.latent_factor
    words = int(base.text_encoder.config.vocab_size)
    length = int(base.text_encoder.config.max_position_embeddings)
    return [
        Batch(
            latents=torch.randn(batch, 4, side, side, generator=generator).to(base.device),
            noise=torch.randn(batch, 4, side, side, generator=generator).to(base.device),
            timesteps=torch.randint(0, len(base.schedule), (batch,), generator=generator).to(base.device),
            tokens=torch.randint(0, words, (batch, length), generator=generator).to(base.device),
        )
        for _ in range(steps)
    ]


def vez_steps(base: Base, ranks: list[int]) -> Callable[[Batch], list[float]]:
    """vez's own training step over len(ranks) variants: a function from a batch to the variants' losses."""
    lora = attach(base, [LoraSpec(rank, rank) for rank in ranks], seed=0)
    optimizer = AdamW(lora)
    rates = [Rates(LR_UNET, LR_TEXT, WEIGHT_DECAY, CLIP)] * len(ranks)

    def step(batch: Batch) -> list[float]:
        assert batch.tokens is not None
        repeated = Batch(batch.latents, batch.noise, batch.timesteps, batch.tokens.repeat(len(ranks), 1))
        losses = variant_losses(base, repeated, variants=len(ranks))
        losses.sum().backward()
        optimizer.step(rates, optimizer.norms())
        return [float(loss) for loss in losses.detach()]

    return step


def plain_steps(base: Base, rank: int) -> Callable[[Batch], list[float]]:
    """The loop as diffusers' examples write it, on peft's LoRA layers, torch's AdamW and vez's initial weights."""
    start = attach(base, [LoraSpec(rank, rank)], seed=0)
    state = start.state(0)
    start.detach()
    unet, text_encoder = unet_of(base), text_of(base)
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=UNET_MODULES))
    text_encoder.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TEXT_MODULES))
    networks = {"unet": unet, "text": text_encoder}
    with torch.no_grad():
        for key, target in base_keys(base).items():
            layer: Any = networks[target.network].get_submodule(target.path)
            layer.lora_A["default"].weight.copy_(state[key].down.view_as(layer.lora_A["default"].weight))
            layer.lora_B["default"].weight.zero_()
    groups = [[p for p in network.parameters() if p.requires_grad] for network in (unet, text_encoder)]
    if sum(p.numel() for group in groups for p in group) != sum(w.down.numel() + w.up.numel() for w in state.values()):
        raise SystemExit("the plain loop does not train the same modules")
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "lr": LR_UNET}, {"params": groups[1], "lr": LR_TEXT}], weight_decay=WEIGHT_DECAY
    )
    alphas = base.schedule.alphas_cumprod.to(base.device)

    def step(batch: Batch) -> list[float]:
        alpha = alphas[batch.timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise
        text = text_encoder(input_ids=batch.tokens).last_hidden_state
        prediction = unet(noisy, batch.timesteps, encoder_hidden_states=text, return_dict=False)[0]
        loss = F.mse_loss(prediction.float(), batch.noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group], CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return [float(loss.detach())]

    return step


def timed(step: Callable[[Batch], list[float]], batches: list[Batch]) -> Iterator[tuple[float, list[float]]]:
    """(seconds, losses) of each step; reading the losses waits for the device."""
    for batch in batches:
        start = time.perf_counter()
        losses = step(batch)
        yield time.perf_counter() - start, losses


def check_equal_work(losses: dict[str, list[list[float]]]) -> None:
    """Stop unless every contender's first variant went through the same losses."""
    names = list(losses)
    for i, expected in enumerate(losses[names[0]]):
        for name in names[1:]:
            got = losses[name][i][0]
            if abs(got - expected[0]) > TOLERANCE * abs(expected[0]):
                raise SystemExit(f"not the same work: at step {i} {names[0]} has loss {expected[0]}, {name} has {got}")


def machine(device: torch.device) -> str:
    """The machine in a line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description="time a training step")
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    bases = [load(options.base, device=options.device) for _ in range(3)]
    batches = inputs(bases[0], batch=options.batch, steps=options.steps)
    ranks = [options.rank, options.rank, 2 * options.rank, 2 * options.rank]
    contenders = {
        "plain diffusers + peft": plain_steps(bases[0], options.rank),
        "vez, V = 1": vez_steps(bases[1], [options.rank]),
        "vez, V = 4": vez_steps(bases[2], ranks),
    }
    warm = {name: [losses for _, losses in timed(step, batches)] for name, step in contenders.items()}
    check_equal_work(warm)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, step in contenders.items():
            seconds[name] += [took for took, _ in timed(step, batches)]
    plain = statistics.median(seconds["plain diffusers + peft"])
    print(f"{machine(bases[0].device)}\nbase {options.base}, {bases[0].size} px, batch {options.batch}, ranks {ranks}")
    print(f"{'':24} {'ms/step':>9} {'fastest':>9} {'slowest':>9}   against four plain runs, per variant")
    for name, times in seconds.items():
        middle = statistics.median(times)
        variants = 4 if name == "vez, V = 4" else 1
        ratio = f"{variants * plain / middle:5.2f} times as fast"
        print(f"{name:24} {1e3 * middle:9.1f} {1e3 * min(times):9.1f} {1e3 * max(times):9.1f}   {ratio}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
