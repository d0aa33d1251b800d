"""What training and drawing cost, counted and not timed, beside what they cost before: CI's gate against slipping.

    python -m vez.bench.gate --check tests/golden/cost.json      # what grew; exit code 1 if anything did
    python -m vez.bench.gate --write tests/golden/cost.json      # accept what it costs now

Operators, floating-point operations and bytes allocated of one step are the same on every machine, whatever it does
besides, so a change that makes a step dearer shows without a clock and without a GPU.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vez.base import Base, computing, encode_text
from vez.bench.counts import Counted, counted
from vez.bench.step import DTYPES, RATES, random_batch
from vez.bench.weights import random_base
from vez.bench.work import Workload
from vez.config import Sampling
from vez.denoise import variant_losses
from vez.draw import Brush
from vez.lora import attach
from vez.nets.kernels import products
from vez.optim import AdamW
from vez.solver import denoise, moves, noise
from vez.store import write_atomic

GROWTH = {"operators": 0.0, "gflop": 0.001, "megabytes": 0.01}
"""By which share a number may grow before it counts as grown."""
ACCEPT = "python -m vez.bench.gate --write tests/golden/cost.json"
_GUIDANCE, _STEPS = 7.5, 2
_WARM_UP = 2  # what is remembered from step to step is there by then


@dataclass(frozen=True)
class Cost:
    """One step's operators, 10⁹ floating-point operations, and 10⁶ bytes of tensors allocated."""

    operators: int
    gflop: float
    megabytes: float

    @classmethod
    def of(cls, one: Counted, less: Counted | None = None) -> "Cost":
        """What was counted, ``less`` what something else took."""
        operators, flops, size = (
            getattr(one, name) - (getattr(less, name) if less else 0) for name in ("operators", "flops", "bytes")
        )
        return cls(operators, round(flops / 1e9, 4), round(size / 1e6, 4))


def rows() -> dict[str, Callable[[], Cost]]:
    """What is counted, by name: training and drawing on `tiny`, and training in SD 1.5's own shape and size."""
    found: dict[str, Callable[[], Cost]] = {}
    for dtype in ("fp32", "bf16"):
        for variants in (1, 4):
            work = Workload("tiny", 64, 2, (8,) * variants, dtype, "cpu", 1)
            name = f"train tiny, {dtype}, {variants} variant{'s' if variants > 1 else ''}"
            found[name] = lambda work=work: training(work)  # type: ignore[misc]
        found[f"draw tiny, {dtype}"] = lambda dtype=dtype: drawing(dtype)  # type: ignore[misc]
    sd1 = Workload("sd1", 512, 1, (32,), "fp32", "meta", 1)
    found["train sd1, 512 px, fp32, 1 variant"] = lambda: training(sd1)
    return found


@contextmanager
def one_way() -> Iterator[None]:
    """Inside, products are asked of the same library on every processor, so that counts are the same on all."""
    own = products._wide
    products._wide = lambda: hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[assignment]
    try:
        yield
    finally:
        products._wide = own


def training(work: Workload) -> Cost:
    """A training step: forward, backward, AdamW."""
    base = random_base(work.base, device=torch.device(work.device), dtype=DTYPES[work.dtype])
    with one_way(), computing(base, DTYPES[work.dtype], pixels=work.size):
        batch = random_batch(base, work)
        lora = attach(base, work.specs, seed=0)
        optimizer, norms = AdamW(lora), torch.ones(len(work.ranks))

        def step() -> None:
            variant_losses(base, batch, variants=len(work.ranks)).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step([RATES] * len(work.ranks), norms if work.device == "meta" else optimizer.norms())

        for _ in range(_WARM_UP):
            step()
        return Cost.of(counted(step))


def drawing(dtype: str) -> Cost:
    """One more step of a sampler with guidance, two pictures of 64 px; what a walk does once is not in it."""
    base = random_base("tiny", device=torch.device("cpu"), dtype=torch.float32)
    with one_way():
        once, twice = (_walk(base, dtype, steps) for steps in (_STEPS, _STEPS + 1))
    return Cost.of(twice, once)


def _walk(base: Base, dtype: str, steps: int) -> Counted:
    side, sampling = 64 // base.latent_factor, Sampling(cfg=_GUIDANCE)
    text = encode_text(base, ["a costume", "a house"])
    walk = moves(base.schedule.alphas_cumprod.double().numpy(), steps, solver=sampling.solver)
    unet = Brush(base, sampling, "bf16" if dtype == "bf16" else None).frozen()
    how: dict[str, Any] = {"text": text, "negative": text, "walk": walk, "cfg": sampling.cfg, "unet": unet}
    latents = noise([0, 1], side, side)
    denoise(base, latents, **how)
    return counted(lambda: denoise(base, latents, **how))


def grown(before: Mapping[str, Mapping[str, float]], now: Mapping[str, Cost]) -> list[str]:
    """A sentence for each number that is larger than it was, or that nobody has accepted yet."""
    said = [f"{name}: not in the accepted numbers yet" for name in now if name not in before]
    for name, cost in now.items():
        for what, value in asdict(cost).items():
            was = before.get(name, {}).get(what, value)
            if value > was * (1 + GROWTH[what]):
                said.append(f"{name}: {what} grew from {was:g} to {value:g} ({100 * (value / was - 1):+.2f} %)")
    return said


def main(arguments: list[str]) -> int:
    """Compare with the accepted numbers, or accept those of now; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    now = {name: count() for name, count in rows().items()}
    lines = [f"{name}: {c.operators} operators, {c.gflop:g} GFLOP, {c.megabytes:g} MB" for name, c in now.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.write:
        found = {"torch": torch.__version__.partition("+")[0], "cost": {name: asdict(c) for name, c in now.items()}}
        write_atomic(options.write, (json.dumps(found, indent=1) + "\n").encode())
    if options.check:
        said = grown(json.loads(options.check.read_bytes())["cost"], now)
        sys.stdout.write("".join(f"{line}\n" for line in said))
        return 1 if said else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
