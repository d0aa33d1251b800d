"""The rows of the benchmark, each one command: `python bench/rows.py T1`, or with --small what a CPU can do of it.

    T1, T1b, T1c  a training step, SD 1.5's shape, 512²: batch 8; rank 64; batch 1      T3   four variants, three ways
    T2            from the command to the file: 34 pictures, 425 steps of batch 8       T4   SDXL's shape, 1024²
    T5            the largest batch in 6, 8, 12, 24 GB                                  T6   the CPU: tiny, a real step
    S1            64 pictures of 20 steps with guidance                                 S2   four LoRAs in turn

Rows beside the reference race against its fastest setting (bench/table.py). What needs a GPU says so where there is
none and ends with 2; T5, T6 need none. --small: the same row at a size that a CPU does in minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import get_args

import torch

from race import Arm, machine, machine_text, race
from start import COMMAND
from table import HEAD, Row, three, trained
from vez import demo
from vez.bench import weights
from vez.bench.work import Workload
from vez.config import Checkpointing, Quantize
from vez.nets.unet import UNetConfig
from vez.room import Sizes, largest_batch, sizes_of

MISTAKE = 2
CARDS = (6, 8, 12, 24)  # GB
SD15 = Workload("sd1", 512, 8, (32,), "bf16", "cuda", 1)
SDXL = replace(SD15, base="sdxl", size=1024)
SMALL = Workload("sd1", 256, 1, (32,), "bf16", "cpu", 1)
TINY = Workload("tiny", 128, 8, (8,), "fp32", "cpu", 1)
EVALUATED = Path(__file__).with_name("sampling.py")


def steps(what: str, work: Workload, target: str = "") -> Callable[[int], None]:
    """A training step beside the reference's."""

    def run(pairs: int) -> None:
        row = trained(what, work, pairs=pairs, inner=10 if work.device == "cuda" else 1, target=target)
        show(row)
        samples = work.batch * len(work.ranks) / (row.ours[0] / 1e3)
        print(f"\nvez: {samples:.3g} samples/s")

    return run


def show(*rows: Row) -> None:
    """The table so far."""
    print("\n".join([machine_text(machine()), "", HEAD, *(row.line() for row in rows)]))


def cold(small: bool) -> Callable[[int], None]:
    """Process start to LoRA file: the command, its phases by the times of its events."""

    def run(pairs: int) -> None:
        found = [_cold(small) for _ in range(max(3, pairs // 2) if small else pairs)]
        print(machine_text(machine()))
        for phase in found[0]:
            middle, low, high = three([one[phase] for one in found])
            print(f"{phase}: {middle:.1f} s ({low:.1f} to {high:.1f})")

    return run


def _cold(small: bool) -> dict[str, float]:
    """Seconds of `vez build` and `vez train` on a project of the demo's 34 pictures; on a CPU 20 steps of tiny."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        demo.copy_project(project)
        file = project / "vez.toml"
        text = file.read_text(encoding="utf-8").partition("[study.nosnja]")[0]
        variant = 'only = { dataset = "v2", batch = 8, rank = 32 }'
        length = 20 if small else 425
        file.write_text(f"{text}\n[study.one]\nsteps = {length}\n[study.one.variant]\n{variant}\n", encoding="utf-8")
        seconds = {}
        for phase, command in {"build": ["build", "v2"], "train": ["train", "one"]}.items():
            began = perf_counter()
            subprocess.run([*COMMAND, *command, "--config", str(file)], check=True, capture_output=True)
            seconds[phase] = perf_counter() - began
        logs = [path for path in project.glob("studies/*/runs/*/events.jsonl")]
        told = [json.loads(line) for line in logs[0].read_text(encoding="utf-8").splitlines()]
        seconds["of that, steps"] = sum(one["seconds"] for one in told if one["event"] == "step")
        return seconds


def study(work: Workload) -> Callable[[int], None]:
    """Four variants in one pass, in four passes, and in four processes at once."""

    def run(pairs: int) -> None:
        four = replace(work, ranks=work.ranks * 4)
        done = race([Arm("vez", work), Arm("vez", four)], warm=2, rounds=pairs)
        alone, together = (done.seconds(arm) for arm in done.arms)
        at_once = _at_once(work, pairs)
        ratio = tuple(4 * value for value in done.ratio(done.arms[0], done.arms[1]))
        ours, fours = three(together, 1e3), three(alone, 4e3)
        show(Row("one pass", "ms", ours, fours, (ratio[0], ratio[1], ratio[2]), None, "", "four passes, one by one"))
        times = ", ".join(f"{value:.1f}" for value in three(at_once, 1e3))
        print(f"\nfour processes at once: {times} ms for a step of each (median, fastest, slowest)")

    return run


def _at_once(work: Workload, rounds: int) -> list[float]:
    """Seconds until four processes have each made a step that they began together."""
    arms = [Arm("vez", work) for _ in range(4)]
    for arm in arms:
        arm.start()
    for arm in arms:
        arm.step()
    found = []
    for _ in range(rounds):
        began = perf_counter()
        for arm in arms:
            arm.process.stdin.write("step 1\n")
            arm.process.stdin.flush()
        for arm in arms:
            arm.process.stdout.readline()
        found.append(perf_counter() - began)
    for arm in arms:
        arm.close()
    return found


def room(pairs: int) -> None:
    """The largest batch in each card, by vez's prediction; no GPU has been measured."""
    print("| | " + " | ".join(f"{card} GB" for card in CARDS) + " |\n" + "|---" * (len(CARDS) + 1) + "|")
    for shape, side in (("sd1", 512), ("sdxl", 1024)):
        for text, kept, how in product((True, False), get_args(Quantize), get_args(Checkpointing)):
            trains = "U-Net and text" if text else "U-Net only"
            base = "bf16" if kept == "none" else f"bf16, base in {kept}"
            given = {"side": side, "ranks": (32,), "text": text, "checkpointing": how, "quantize": kept}
            most = [largest_batch(shaped(shape), bytes_free=card * 1e9, **given) for card in CARDS]  # type: ignore[arg-type]
            cells = [str(n) if n else "—" for n in most]
            print(f"| {shape} {side}², {base}, {trains}, checkpointing {how} | {' | '.join(cells)} |")


def shaped(shape: str) -> Sizes:
    """The sizes of a published base."""
    if shape == "tiny":
        return sizes_of(Path(demo.__file__).parent / "base")
    return Sizes(vars(UNetConfig.of(weights.UNETS[shape])), weights.TEXTS[shape], weights.VAE)


def sampling(line: str) -> Callable[[int], None]:
    """bench/sampling.py, as it is."""

    def run(pairs: int) -> None:
        subprocess.run([sys.executable, str(EVALUATED), *line.split(), "--pairs", str(pairs)], check=True)

    return run


def swapping(base: str, size: int, length: int) -> Callable[[int], None]:
    """Pictures with four LoRAs in turn, sixteen each: what it costs to take another one is in the time."""

    def run(pairs: int) -> None:
        from sampling import PROJECT, base_of, lora_of
        from vez import suite
        from vez.config import Sampling
        from vez.device import choose
        from vez.sample import sample

        network = base_of(base, choose("auto"))
        how = Sampling(steps=length, batch=16, seeds=4, size=size)
        lines = [p for p in suite.SUITES["tiny"]["garment"] if p.set == "B"][:4]
        prompts = [p.model_copy(update={"text": PROJECT.expand(p.text)}) for p in lines]
        seconds = []
        with tempfile.TemporaryDirectory() as folder:
            lora = lora_of(network, Path(folder))[0]
            arms = {f"v{i}": lora for i in range(1, 5)}
            for turn in range(pairs + 1):
                began = perf_counter()
                for _ in sample(network, arms, prompts, sampling=how, into=Path(folder) / str(turn)):
                    pass
                seconds.append(perf_counter() - began)
        middle, low, high = three(seconds[1:])
        print(machine_text(machine()))
        print(f"{base}, {size} px, {length} steps, 4 LoRAs × 16 pictures: {64 / middle:.3g} pictures/s ", end="")
        print(f"({64 / high:.3g} to {64 / low:.3g}), taking the LoRAs in turn included")

    return run


def both(*runs: Callable[[int], None]) -> Callable[[int], None]:
    """One after the other."""

    def run(pairs: int) -> None:
        for one in runs:
            one(pairs)

    return run


REAL = steps("train SD 1.5's shape, 256², batch 1, bf16", SMALL)
FULL: dict[str, Callable[[int], None]] = {
    "T1": steps("train SD 1.5's shape, 512², batch 8, bf16", SD15, "≥ 2"),
    "T1b": steps("the same, rank 64", replace(SD15, ranks=(64,))),
    "T1c": steps("the same, batch 1", replace(SD15, batch=1)),
    "T2": cold(small=False),
    "T3": study(SD15),
    "T4": both(*(steps(f"train SDXL's shape, 1024², batch {n}", replace(SDXL, batch=n)) for n in (1, 4))),
    "T5": room,
    "T6": both(steps("train tiny, 128², batch 8, fp32", TINY), REAL),
    "S1": sampling("--base sd1 --size 512 --steps 20 --batch 32 --prompts 16 --seeds 2 --against 3"),
    "S2": swapping("sd1", 512, 20),
}
FEW: dict[str, Callable[[int], None]] = {
    "T1": REAL,
    "T2": cold(small=True),
    "T3": study(TINY),
    "T5": room,
    "T6": FULL["T6"],
    "S1": sampling("--base tiny --size 128 --steps 8 --batch 8 --prompts 4 --seeds 2 --against 3"),
    "S2": swapping("tiny", 64, 4),
}
NO_GPU = frozenset({"T5", "T6"})


def main() -> int:
    """Run one row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("row", choices=FULL)
    parser.add_argument("--small", action="store_true", help="at a size for a CPU")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    rows = FEW if options.small else FULL
    if options.row not in rows:
        sys.stderr.write(f"{options.row} has no size for a CPU; leave --small out on a machine with a GPU\n")
        return MISTAKE
    if not options.small and options.row not in NO_GPU and not torch.cuda.is_available():
        small = f"; python bench/rows.py {options.row} --small is what a CPU can do of it" if options.row in FEW else ""
        sys.stderr.write(f"{options.row} needs a GPU, and there is none here{small}\n")
        return MISTAKE
    rows[options.row](options.pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
