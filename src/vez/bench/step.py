"""The process that measures: `python -m vez.bench.step '<workload as JSON>'` writes one line of JSON."""

import json
import platform
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from vez.base import Base, computing, condition
from vez.bench.counts import counted, matrix_rate, settle
from vez.bench.weights import random_base
from vez.bench.work import Measured, Workload, workload
from vez.denoise import Batch, variant_losses
from vez.device import choose, describe
from vez.errors import VezError
from vez.lora import LoraSpec, attach
from vez.nets.kernels.regions import uncompiled
from vez.optim import AdamW, Rates

WARM_UP = 2
RATES = Rates(unet=1e-4, text=5e-5, weight_decay=0.01, clip=1.0)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def measure(work: Workload) -> Measured:
    """Build the base, train ``work.steps`` steps after two to warm up, and count one more."""
    device, dtype = choose(work.device), DTYPES[work.dtype]
    base = random_base(work.base, device=device, dtype=dtype, quantize=work.quantize)
    with computing(base, dtype, pixels=work.size, checkpointing=work.checkpointing, compile=work.compile):
        batch = random_batch(base, work)
        step = trainer(base, work.specs)
        for _ in range(WARM_UP):
            step(batch)
        seconds = []
        for _ in range(work.steps):
            settle(device)
            began = perf_counter()
            step(batch)
            settle(device)
            seconds.append(perf_counter() - began)
        peak = peak_bytes(device)  # before the counting, which needs memory of its own
        with uncompiled():  # operators are counted as PyTorch dispatches them
            once = counted(lambda: step(batch))
    return Measured(
        work,
        f"{describe(device)}, torch {torch.__version__}, Python {platform.python_version()}",
        tuple(seconds),
        peak,
        once.flops,
        once.operators,
        matrix_rate(device, dtype),
    )


def random_batch(base: Base, work: Workload, *, seed: int = 0) -> Batch:
    """Gaussian latents and noise, random timesteps and tokens, each variant's the same: B = ``work.batch``.

    Captions are encoded already where no variant trains a text encoder.
    """
    dice = torch.Generator().manual_seed(seed)
    configs: list[Any] = [encoder.config for encoder in base.text_encoders]
    side = work.size // base.latent_factor
    shape = (work.batch, 4, side, side)
    tokens = [
        torch.randint(0, int(c.vocab_size), (work.batch, int(c.max_position_embeddings)), generator=dice)
        for c in configs
    ]
    sizes = torch.tensor([[work.size, work.size, 0, 0, work.size, work.size]] * work.batch, dtype=torch.float32)
    ids = torch.cat(tokens, dim=1).repeat(len(work.ranks), 1).to(base.device)
    frozen = not any(spec.trains("text", encoder) for spec in work.specs for encoder in range(len(configs)))
    with torch.no_grad():
        text = condition(base, ids) if frozen else None
    return Batch(
        latents=torch.randn(shape, generator=dice).to(base.device),
        noise=torch.randn(shape, generator=dice).to(base.device),
        timesteps=torch.randint(0, len(base.schedule), (work.batch,), generator=dice).to(base.device),
        tokens=None if frozen else ids,
        text=text,
        sizes=sizes.to(base.device) if base.family.pooled else None,
    )


def trainer(base: Base, specs: Sequence[LoraSpec]) -> Callable[[Batch], tuple[list[float], list[float]]]:
    """vez's training step over LoRAs of these shapes: batch → each variant's loss and gradient norm."""
    lora = attach(base, specs, seed=0)
    optimizer = AdamW(lora)

    def step(batch: Batch) -> tuple[list[float], list[float]]:
        losses = variant_losses(base, batch, variants=len(specs))
        losses.sum().backward()  # type: ignore[no-untyped-call]
        norms = optimizer.norms()
        optimizer.step([RATES] * len(specs), norms)
        return losses.detach().tolist(), norms.tolist()

    return step


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of torch's allocations on a GPU, else of this process.

    Linux's own VmHWM where there is one: getrusage's number survives exec, so a child begins with its parent's peak.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def main(arguments: list[str]) -> int:
    """Measure the workload in the first argument; returns the exit code."""
    row: Mapping[str, Any] = json.loads(arguments[0])
    try:
        result = measure(workload(row))
    except VezError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(asdict(result)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
