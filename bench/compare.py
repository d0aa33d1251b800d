"""vez beside the reference (reference.py), interleaved, each in a process of its own with a peak memory of its own.

    python bench/compare.py --base sd1 --size 256 --batch 1 --rank 32 --dtype bf16 --pairs 5 [--markdown]

First the equal-work check: same weights, same inputs, so losses and gradient norms must agree at every step, the
warm-up's and the timed ones' (relative 1e-3 and 1e-2 in fp32; 1e-2 and 5e-2 in bfloat16, where the arms round
differently); the script stops where they part. Then the arms take turns, one step each, A B C A B C …; reported are
medians, the ratio of the medians, and the lowest and highest ratio of a round.
"""

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

SELECTIVE = 'vez, checkpointing = "selective"'
ARMS = ("reference, SDPA", "reference, plain attention", SELECTIVE, "vez")
TOLERANCE = {"fp32": (1e-3, 1e-2), "bf16": (1e-2, 5e-2)}
BATCHES = 4  # different ones, in turn


def arm(name: str, row: dict[str, Any]) -> None:
    """The child: a step for each line on stdin, answered by a line of JSON."""
    import torch

    from vez.base import computing
    from vez.bench.step import DTYPES, peak_bytes, random_batch, trainer
    from vez.bench.weights import random_base
    from vez.bench.work import Workload
    from vez.device import choose

    work = Workload(**(row | {"ranks": tuple(row["ranks"])}))
    device = choose(work.device)
    base = random_base(work.base, device=device, dtype=DTYPES[work.dtype])
    batches = [random_batch(base, work, seed=i) for i in range(BATCHES)]
    stack = ExitStack()  # held by this frame: a context manager that nobody holds ends at once
    if name.startswith("vez"):
        again = "selective" if name == SELECTIVE else "none"
        stack.enter_context(computing(base, DTYPES[work.dtype], pixels=work.size, checkpointing=again))
        ours = trainer(base, work.specs)
    else:
        from reference import reference

        theirs = reference(base, work.ranks[0], fused_attention="SDPA" in name)
    for i, _ in enumerate(sys.stdin):
        batch = batches[i % BATCHES]
        began, used = perf_counter(), process_time()
        if name.startswith("vez"):
            losses, norms = ours(batch)
            loss, norm = losses[0], norms[0]
        else:
            loss, norm = theirs(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        answer = {"seconds": perf_counter() - began, "cpu": process_time() - used, "loss": loss, "norm": norm}
        answer["peak"] = peak_bytes(device)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


class Arm:
    """One child process; only one of them works at a time."""

    def __init__(self, name: str, work: dict[str, Any]) -> None:
        self.name = name
        self.rows: list[dict[str, float]] = []
        command = [sys.executable, str(Path(__file__)), "--arm", name, "--work", json.dumps(work)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def step(self) -> dict[str, float]:
        """One step; its seconds, loss, gradient norm and the peak so far."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        self.rows.append(json.loads(line))
        return self.rows[-1]

    def close(self) -> None:
        """Let the child end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def check_equal_work(arms: list[Arm], dtype: str) -> tuple[float, float]:
    """The largest relative differences of loss and gradient norm; stop where they are not the same work."""
    worst = [0.0, 0.0]
    for other in arms[:-1]:
        for i, (theirs, ours) in enumerate(zip(other.rows, arms[-1].rows, strict=True)):
            for k, what in enumerate(("loss", "norm")):
                apart = abs(ours[what] - theirs[what]) / abs(theirs[what])
                worst[k] = max(worst[k], apart)
                if not apart <= TOLERANCE[dtype][k]:
                    raise SystemExit(
                        f"not the same work: step {i}, {what}: {other.name} {theirs[what]}, vez {ours[what]}"
                    )
    return worst[0], worst[1]


def main() -> int:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description="vez beside a diffusers + peft loop")
    for option, default in (("base", "tiny"), ("dtype", "bf16"), ("device", "cpu")):
        parser.add_argument(f"--{option}", default=default)
    for option, default in (("size", 128), ("batch", 1), ("rank", 32), ("pairs", 5), ("warm", 4)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        arm(options.arm, json.loads(options.work))
        return 0
    from vez.bench.work import Workload

    ranks = (options.rank,)
    work = Workload(options.base, options.size, options.batch, ranks, options.dtype, options.device, options.pairs)
    work.check()
    arms = [Arm(name, asdict(work)) for name in ARMS]
    for _ in range(options.warm):
        for one in arms:
            one.step()
    check_equal_work(arms, options.dtype)
    for _ in range(options.pairs):
        for one in arms:
            one.step()
    losses, norms = check_equal_work(arms, options.dtype)
    for one in arms:
        one.close()
    print(
        f"{work.base}, {work.size} px, batch {work.batch}, rank {options.rank}, {work.dtype}, {work.device}; ", end=""
    )
    print(f"{options.warm} steps to warm up, {options.pairs} rounds")
    print(f"equal work: losses within {losses:.1e}, gradient norms within {norms:.1e} at every step\n")
    print(
        "| arm | ms/step, median | fastest | slowest | vez's time ÷ its (rounds' range) | CPU s/step, median | fastest "
        "| vez's ÷ its (rounds' range) | peak MB | ÷ first's | vez's peak ÷ its |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    ours = [row["seconds"] for row in arms[-1].rows[options.warm :]]
    own = [row["cpu"] for row in arms[-1].rows[options.warm :]]
    for one in arms:
        times = [row["seconds"] for row in one.rows[options.warm :]]
        rounds = [mine / theirs for mine, theirs in zip(ours, times, strict=True)]
        ratio = f"{statistics.median(ours) / statistics.median(times):.2f} ({min(rounds):.2f} to {max(rounds):.2f})"
        peak, mine = one.rows[-1]["peak"], arms[-1].rows[-1]["peak"]
        print(f"| {one.name} | {1e3 * statistics.median(times):.1f} | {1e3 * min(times):.1f} | ", end="")
        used = [row["cpu"] for row in one.rows[options.warm :]]
        rounds = [one / other for one, other in zip(own, used, strict=True)]
        cpu = f"{statistics.median(own) / statistics.median(used):.2f} ({min(rounds):.2f} to {max(rounds):.2f})"
        print(f"{1e3 * max(times):.1f} | {ratio} | {statistics.median(used):.2f} | {min(used):.2f} | {cpu} | ", end="")
        print(f"{peak / 1e6:.0f} | {peak / arms[0].rows[-1]['peak']:.2f} | {mine / peak:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
