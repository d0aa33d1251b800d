"""Four variants in one pass beside four passes of one each, in turn, in one process.

    python bench/variants.py --base tiny --size 128 --batch 8 --rank 32 --dtype fp32 --rounds 7

Reported are medians, and the median ratio of a round with the lowest and the highest. The first round's losses of both
must agree (relative 1e-4 in fp32, 1e-2 in bfloat16).
"""

import argparse
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch

from vez.base import computing
from vez.bench.step import DTYPES, random_batch, trainer
from vez.bench.weights import random_base
from vez.bench.work import Workload

VARIANTS = 4


def main() -> int:
    """Run it and print the row."""
    parser = argparse.ArgumentParser(description="four variants in one pass, and in four")
    for option, default in (("base", "tiny"), ("dtype", "fp32")):
        parser.add_argument(f"--{option}", default=default)
    for option, default in (("size", 128), ("batch", 8), ("rank", 32), ("rounds", 7), ("warm", 2)):
        parser.add_argument(f"--{option}", type=int, default=default)
    options = parser.parse_args()
    one, four = (
        Workload(options.base, options.size, options.batch, (options.rank,) * count, options.dtype, "cpu")
        for count in (1, VARIANTS)
    )
    dtype = DTYPES[options.dtype]
    runs: list[Callable[[], Any]] = []
    found: dict[int, list[float]] = {0: [], 1: []}
    bases = [random_base(options.base, device=torch.device("cpu"), dtype=dtype) for _ in range(2)]
    with computing(bases[0], dtype, pixels=options.size), computing(bases[1], dtype, pixels=options.size):
        single, batch = trainer(bases[0], one.specs), random_batch(bases[0], one)
        whole, batches = trainer(bases[1], four.specs), random_batch(bases[1], four)
        alone, together = single(batch)[0][0], whole(batches)[0]
        close = 1e-4 if options.dtype == "fp32" else 1e-2
        if not all(abs(loss - alone) <= close * abs(alone) for loss in together):
            raise SystemExit(f"not the same work: {alone} alone, {together} together")
        runs = [lambda: whole(batches), lambda: [single(batch) for _ in range(VARIANTS)]]
        for turn in range(options.warm + options.rounds):
            for place, run in enumerate(runs):
                began = perf_counter()
                run()
                if turn >= options.warm:
                    found[place].append(perf_counter() - began)
    ratios = [passes / together for together, passes in zip(found[0], found[1], strict=True)]
    print(f"{options.base}, {options.size} px, batch {options.batch}, rank {options.rank}, {options.dtype}, ", end="")
    print(f"{torch.get_num_threads()} threads: four variants in one pass {1e3 * median(found[0]):.0f} ms, ", end="")
    print(f"four passes {1e3 * median(found[1]):.0f} ms; ", end="")
    print(f"ratio {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), {options.rounds} rounds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
