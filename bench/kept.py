"""What keeping less costs in time: a training step with this and that of `vez.base.lean` and of attention, in turn.

    OMP_NUM_THREADS=1 python bench/kept.py --base tiny --size 128 --batch 1 --dtype fp32 --rounds 11 [--modes …]

One process, one base, one LoRA; each round makes one step in every mode, in an order that is drawn anew. Reported are
medians of CPU seconds (user and system), of each mode's ratio to the first in the same round, and how far the
process's memory rose above what it was before the step (Linux's VmHWM, which is set back before each).
"""

import argparse
import ctypes
import gc
import random
import resource
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

import vez.base.lean as lean_module
from vez.base import Base
from vez.base.checkpointing import checkpointed
from vez.base.lean import lean
from vez.base.model import computing_in, plain_attention
from vez.bench.step import DTYPES, random_batch, trainer
from vez.bench.weights import random_base
from vez.bench.work import Workload

_MMAP, _TRIM = -3, -1
CONV, NORMS, GROUPS, GATES = "conv", "norms", "groups", "gates"
MODES: dict[str, tuple[str, ...]] = {
    "before": (),
    "fused": ("fused",),
    "apart": ("apart",),
    "attention": ("products",),
    "conv": ("products", CONV),
    "gates": ("products", CONV, GATES),
    "layernorm": ("products", CONV, GATES, NORMS),
    "all": ("products", CONV, GATES, NORMS, GROUPS),
    "all+apart": ("products", CONV, GATES, NORMS, GROUPS, "apart"),
    "selective": ("products", CONV, GATES, NORMS, GROUPS, "apart", "selective"),
}


@contextmanager
def mode(base: Base, name: str) -> Iterator[None]:
    """Inside, the base computes in this mode."""
    has = MODES[name]
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP, 256 * 1024 if "apart" in has else 32 * 2**20)
    libc.mallopt(_TRIM, 256 * 1024 if "apart" in has else 64 * 2**20)
    with ExitStack() as stack:
        if "fused" not in has:
            stack.enter_context(plain_attention(base))
            if "products" not in has:
                base.unet.set_attn_processor(AttnProcessor())  # type: ignore[operator]
        if {CONV, GATES, NORMS, GROUPS} & {*has}:
            own = lean_module._forward_of
            stack.callback(setattr, lean_module, "_forward_of", own)
            stack.callback(setattr, lean_module, "large_tensors_apart", lean_module.large_tensors_apart)
            lean_module.large_tensors_apart = lambda: True
            lean_module._forward_of = lambda module, pantry: own(module, pantry) if kind(module) in has else None
            stack.enter_context(lean(base))
        if "selective" in has:
            stack.enter_context(checkpointed(base, "selective"))
        yield


def kind(module: nn.Module) -> str:
    """Which of lean's parts a module belongs to."""
    if isinstance(module, nn.Conv2d):
        return CONV
    if isinstance(module, nn.GroupNorm):
        return GROUPS
    return NORMS if isinstance(module, nn.LayerNorm) else GATES


def risen(work: Callable[[], Any]) -> tuple[float, float, float]:
    """User and system CPU seconds of a call, and the bytes that memory rose by."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, used = status("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime - used.ru_utime, after.ru_stime - used.ru_stime, status("VmHWM") - before


def status(key: str) -> float:
    """A line of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith(key))


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description="what keeping less costs")
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--modes", default=",".join(MODES))
    for option, default in (("size", 128), ("batch", 1), ("rank", 32), ("rounds", 11), ("inner", 1), ("warm", 2)):
        parser.add_argument(f"--{option}", type=int, default=default)
    options = parser.parse_args()
    work = Workload(options.base, options.size, options.batch, (options.rank,), options.dtype, "cpu")
    base = random_base(work.base, device=torch.device("cpu"), dtype=DTYPES[work.dtype])
    names, rows = options.modes.split(","), dict[str, list[tuple[float, float, float]]]()
    with computing_in(base, DTYPES[work.dtype]):
        step, batch = trainer(base, work.specs), random_batch(base, work)
        for turn in range(options.warm + options.rounds):
            for name in random.sample(names, len(names)):
                with mode(base, name):
                    found = risen(lambda: [step(batch) for _ in range(options.inner)])
                if turn >= options.warm:
                    rows.setdefault(name, []).append(found)
    print(f"{work.base}, {work.size} px, batch {work.batch}, {work.dtype}, {torch.get_num_threads()} threads, ", end="")
    print(f"{options.rounds} rounds of {options.inner} steps\n")
    print("| mode | user s | system s | CPU s | ÷ the first's (quartiles) | MB above before |")
    print("|---|---|---|---|---|---|")
    first = [user + system for user, system, _ in rows[names[0]]]
    for name in names:
        user, system, memory = (statistics.median(column) for column in zip(*rows[name], strict=True))
        both = [one + other for one, other, _ in rows[name]]
        ratios = [mine / theirs for mine, theirs in zip(both, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"| {name} | {user:.3f} | {system:.3f} | {statistics.median(both):.3f} | ", end="")
        print(f"{middle:.3f} ({low:.3f} to {high:.3f}) | {memory / 1e6:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
