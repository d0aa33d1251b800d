"""The ladder: from the loop of diffusers' examples to vez, a lever a rung, each in a process of its own.

    python bench/ladder.py --base sd1 --size 256 --batch 1 --rank 32 --dtype bf16 [--json FILE]
    python bench/ladder.py --base tiny --size 128 --batch 8 --rank 8 --dtype fp32 --inner 4

Every rung holds what those below it hold. The rungs do the same work, and the script stops where they do not: the same
first weights and inputs, and losses and gradient norms that agree at every step. The rungs of a group (--together, with
the lowest rung in each, so that memory suffices) take turns, a step each; a rung's gain is the ratio of medians to the
lowest rung of its own group. Operators, FLOP and bytes are counted in one more step, which nothing times.

A rung that only a GPU has is named and not run where there is none.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from arms import GPU_RUNGS, MANY, RUNGS
from race import Arm, Race, machine, machine_text, race
from vez.bench.work import Workload

VARIANTS = 4


def groups(names: Sequence[str], together: int) -> list[list[str]]:
    """The lowest rung with some of the others at a time, in their order."""
    first, *rest = names
    return [[first, *rest[at : at + together - 1]] for at in range(0, len(rest), together - 1)]


def rungs(on_gpu: bool) -> list[str]:
    """Those that this machine can run, the lowest first."""
    return [name for name in RUNGS if on_gpu or name not in GPU_RUNGS]


def row(done: Race, arm: Arm) -> dict[str, Any]:
    """One rung's numbers; times are per step and variant."""
    variants = len(arm.work.ranks)
    first = done.arms[0]
    middle, low, high = done.ratio(arm, first)
    each = [1e3 * s / variants for s in done.seconds(arm)]
    return {
        "rung": arm.name,
        "variants": variants,
        "ms": statistics.median(each),
        "ms_low": min(each),
        "ms_high": max(each),
        "faster": variants / middle,
        "faster_low": variants / high,
        "faster_high": variants / low,
        "peak_bytes": arm.peak,
        "peak_share": arm.peak / first.peak,
        **arm.counts,
    }


def climb(
    work: Workload, *, together: int, warm: int, rounds: int, inner: int, on_gpu: bool, only: int | None
) -> list[dict[str, Any]]:
    """Every rung's row; of one group alone where ``only`` says which."""
    found: dict[str, dict[str, Any]] = {}
    for names in groups(rungs(on_gpu), together)[slice(None) if only is None else slice(only, only + 1)]:
        works = [replace(work, ranks=work.ranks * VARIANTS) if name == MANY else work for name in names]
        arms = [Arm(name, one) for name, one in zip(names, works, strict=True)]
        done = race(arms, warm=warm, rounds=rounds, inner=inner, count=True)
        for arm in arms:
            found.setdefault(arm.name, row(done, arm))
        said = f"losses within {done.apart[0]:.1e}, gradient norms within {done.apart[1]:.1e}"
        print(f"{', '.join(names[1:])}: same work, {said}", file=sys.stderr, flush=True)
    return list(found.values())


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| rung | ms/step and variant, median (range) | times as fast as the first (rounds' range) | operators | GFLOP "
        "| MB allocated | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        gain = f"{r['faster']:.2f} ({r['faster_low']:.2f} to {r['faster_high']:.2f})"
        lines.append(
            f"| {r['rung']} | {r['ms']:.1f} ({r['ms_low']:.1f} to {r['ms_high']:.1f}) | {gain} | {r['operators']} | "
            f"{r['flops'] / 1e9:.1f} | {r['bytes'] / 1e6:.0f} | {r['peak_bytes'] / 1e6:.0f} |"
        )
    left = [f"| {name} | not run: no GPU at hand | | | | | |" for name in RUNGS if name in GPU_RUNGS]
    return "\n".join([*lines, *(left if not any(r["rung"] in GPU_RUNGS for r in rows) else [])])


def main() -> int:
    """Climb and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for option, default in (("base", "tiny"), ("dtype", "bf16"), ("device", "auto")):
        parser.add_argument(f"--{option}", default=default)
    numbers = {"size": 128, "batch": 1, "rank": 32, "rounds": 5, "warm": 2, "inner": 1, "together": 4}
    for option, number in numbers.items():
        parser.add_argument(f"--{option}", type=int, default=number)
    parser.add_argument("--group", type=int, help="only this group of rungs, from 0; its rows are added to --json")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available() and options.device in ("auto", "cuda")
    device = "cuda" if on_gpu else "cpu"
    work = Workload(options.base, options.size, options.batch, (options.rank,), options.dtype, device, 1)
    work.check()
    how = {name: getattr(options, name) for name in ("together", "warm", "rounds", "inner")}
    rows = climb(work, **how, on_gpu=on_gpu, only=options.group)
    if options.group and options.json:
        rows = json.loads(options.json.read_bytes())["rungs"] + rows[1:]
    title = f"{work.base}, {work.size} px, batch {work.batch}, rank {options.rank}, {work.dtype}, {device}"
    print(f"{title}; {options.rounds} rounds\n{machine_text(machine())}\n\n{table(rows)}")
    if options.json:
        found = {"title": title, "machine": machine(), "rounds": options.rounds, "rungs": rows}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
