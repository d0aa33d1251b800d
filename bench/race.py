"""Arms against each other: a process each (bench/arms.py), one at work at a time, in turns; equal work or no times."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vez.bench.work import Workload

TOLERANCE = {"fp32": (1e-3, 1e-2), "bf16": (1e-2, 5e-2)}
"""Of losses and gradient norms, relative; in bfloat16 arms round differently."""


@dataclass
class Arm:
    """One child process and what it said. ``of``: whose losses it must come to; None: those of the race's last arm."""

    name: str
    work: Workload
    rows: list[dict[str, Any]] = field(default_factory=list)
    process: Any = None
    counts: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        """Begin; what is asked first waits until it is built."""
        command = [sys.executable, str(Path(__file__).with_name("arms.py")), self.name, json.dumps(asdict(self.work))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> dict[str, Any]:
        """One question, one answer."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def step(self, inner: int = 1) -> None:
        """Some steps, timed together."""
        row = self.ask(f"step {inner}")
        row["seconds"], row["cpu"] = row["seconds"] / inner, row["cpu"] / inner
        self.rows.append(row)

    def close(self) -> None:
        """Let it end."""
        self.process.stdin.close()
        self.process.wait()

    @property
    def peak(self) -> int:
        """Its peak of memory, in bytes."""
        return int(self.rows[-1]["peak"])


@dataclass(frozen=True)
class Race:
    """What a race came to: seconds per step of every arm in every round, and how far the work was the same."""

    arms: tuple[Arm, ...]
    warm: int
    apart: tuple[float, float]
    """Largest relative difference of losses, of gradient norms."""

    def seconds(self, arm: Arm, what: str = "seconds") -> list[float]:
        """Of the timed rounds."""
        return [row[what] for row in arm.rows[self.warm :]]

    def ratio(self, arm: Arm, other: Arm, what: str = "seconds") -> tuple[float, float, float]:
        """One arm's median time over another's; the lowest and highest ratio of a round."""
        one, two = self.seconds(arm, what), self.seconds(other, what)
        each = [a / b for a, b in zip(one, two, strict=True)]
        return statistics.median(one) / statistics.median(two), min(each), max(each)

    def of(self, name: str) -> Arm:
        """An arm by name."""
        return next(arm for arm in self.arms if arm.name == name)

    def fastest(self, names: Sequence[str]) -> Arm:
        """The one of these with the lowest median."""
        return min((self.of(name) for name in names), key=lambda arm: statistics.median(self.seconds(arm)))

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        arms = [
            {
                "name": arm.name,
                "work": asdict(arm.work),
                "seconds": self.seconds(arm),
                "cpu_seconds": self.seconds(arm, "cpu"),
                "peak_bytes": arm.peak,
                **arm.counts,
            }
            for arm in self.arms
        ]
        return {"machine": machine(), "equal_work": {"loss": self.apart[0], "norm": self.apart[1]}, "arms": arms}


def race(arms: Sequence[Arm], *, warm: int = 2, rounds: int = 5, inner: int = 1, count: bool = False) -> Race:
    """All arms in turns. Exits with a sentence where they do not do the same work."""
    for arm in arms:
        arm.start()
    for _ in range(warm):
        for arm in arms:
            arm.step(inner)
    same_work(arms)
    for _ in range(rounds):
        for arm in arms:
            arm.step(inner)
    apart = same_work(arms)
    for arm in arms:
        if count:
            arm.counts = arm.ask("count")
        arm.close()
    return Race(tuple(arms), warm, apart)


def same_work(arms: Sequence[Arm]) -> tuple[float, float]:
    """The largest relative differences of losses and gradient norms from the last arm's."""
    worst = [0.0, 0.0]
    for k, what in enumerate(("loss", "norm")):
        last = [value for row in arms[-1].rows for value in row[what]]
        for arm in arms[:-1]:
            for i, (value, expected) in enumerate(zip((v for row in arm.rows for v in row[what]), last, strict=True)):
                far = abs(value - expected) / abs(expected)
                worst[k] = max(worst[k], far)
                if not far <= TOLERANCE[arm.work.dtype][k]:
                    told = f"{arm.name} {value}, {arms[-1].name} {expected}"
                    raise SystemExit(f"not the same work: step {i}, {what}: {told}")
    return worst[0], worst[1]


def machine() -> dict[str, Any]:
    """What the numbers belong to."""
    import torch

    on_gpu = torch.cuda.is_available()
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = found[0].partition(":")[2].strip() if found else cpu
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        **{name: version(name) for name in ("torch", "diffusers", "transformers", "peft")},
    }


def machine_text(found: dict[str, Any]) -> str:
    """The same in a line."""
    gpu = f", {found['gpu']}" if found["gpu"] else ", no GPU"
    versions = ", ".join(f"{name} {found[name]}" for name in ("torch", "diffusers", "transformers", "peft"))
    cpu = f"{found['cores']} cores of {found['cpu']} ({found['instructions']}), {found['threads']} threads"
    return f"{cpu}{gpu}; {versions}, Python {found['python']}"


def times(race: Race, arm: Arm) -> str:
    """Median ms, fastest, slowest, as cells."""
    ms = [1e3 * s for s in race.seconds(arm)]
    return f"{statistics.median(ms):.1f} | {min(ms):.1f} | {max(ms):.1f}"
