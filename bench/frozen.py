"""What the networks that draw cost once an arm: laid out for the processor, their first call, and the calls after it.

    python bench/frozen.py [--base tiny | sd1] [--size 256] [--batch 2] [--calls 4] [--precision fp32 | bf16]

The weights are random numbers of the base's shapes; a call is one step of a solver, guided, so of twice the batch.
"""

import argparse
import statistics
import sys
from time import perf_counter

import torch

from race import machine, machine_text
from vez.bench.step import random_base
from vez.nets.inference import FrozenUNet
from vez.nets.packed import How

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@torch.inference_mode()
def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", choices=("tiny", "sd1"), default="sd1")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--precision", choices=DTYPES, default="fp32")
    given = parser.parse_args()
    base = random_base(given.base, device=torch.device("cpu"), dtype=torch.float32)
    side = given.size // base.latent_factor
    latents = torch.randn(given.batch, 4, side, side)
    began = perf_counter()
    unet = FrozenUNet(base.unet, How(DTYPES[given.precision], 2 * given.batch))
    laid_out = perf_counter() - began
    told = unet.told(torch.randn(2 * given.batch, 77, base.unet.config.cross_attention_dim))
    seconds = []
    for _ in range(1 + given.calls):
        began = perf_counter()
        unet(latents, 500, told)
        seconds.append(perf_counter() - began)
    print(f"{given.base}, {given.size} px, batch {given.batch}, {given.precision}; {machine_text(machine())}")
    first, later = seconds[0], statistics.median(seconds[1:])
    print(f"laid out in {laid_out:.2f} s; first call {first:.2f} s; later ones {later:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
