"""What compiling the base's norms and gates gives (`compile` of a study): python bench/regions.py tiny 128 8 fp32.

One process, the ways in turn. Prints the median milliseconds of each, the ratio of each pair,
and the seconds of the first calls, which are those of a filled cache if TORCHINDUCTOR_CACHE_DIR names one.
"""

import sys
from contextlib import nullcontext
from statistics import median
from time import perf_counter

import torch

from vez.base import computing
from vez.bench.step import DTYPES, random_batch, trainer
from vez.bench.weights import random_base
from vez.bench.work import Workload
from vez.nets.kernels import regions

ROUNDS, STEPS = 5, 3
WAYS = ("without", "as on this device", "every region")


def main(base_name: str, size: str, batch: str, dtype: str, ways: str = "3") -> None:
    """Time a workload, the first ``ways`` of them."""
    work = Workload(base=base_name, size=int(size), batch=int(batch), dtype=dtype, device="cpu")
    base = random_base(work.base, device=torch.device("cpu"), dtype=DTYPES[dtype])
    took: dict[str, list[float]] = {way: [] for way in WAYS[: int(ways)]}
    with computing(base, DTYPES[dtype], pixels=work.size):
        step, samples = trainer(base, work.specs), random_batch(base, work)
        for turn in range(ROUNDS + 1):  # the first, which compiles and warms up, is not counted
            for way in took:
                on = nullcontext() if way == WAYS[0] else regions.compiled(base.device, every=way == WAYS[2])
                with on:
                    step(samples)
                    began = perf_counter()
                    for _ in range(STEPS):
                        step(samples)
                    if turn:
                        took[way].append((perf_counter() - began) / STEPS)
                if not turn and way != WAYS[0]:
                    made, seconds = regions.so_far()
                    sys.stdout.write(f"{way}: {made} functions so far, first calls {seconds:.1f} s\n")
                    sys.stdout.flush()
    for way in took:
        ratios = sorted(one / plain for one, plain in zip(took[way], took[WAYS[0]], strict=True))
        sys.stdout.write(
            f"{way}: {1e3 * median(took[way]):.1f} ms; ÷ without {median(ratios):.2f} "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})\n"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
