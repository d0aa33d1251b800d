"""`make bench`: the CPU's table. vez against the best setting of the reference, interleaved; in at most 15 minutes.

    python bench/table.py [--only train-sd1 start …] [--pairs 5] [--to bench/results]

Each row: what vez takes, what the reference's fastest setting takes on this machine (bench/arms.py has the settings;
all are tried first), how many times as fast vez is by the medians and by single rounds, and the share of its peak
memory. Work is compared before times are: losses and gradient norms of every step, pictures to 2 levels of 255.
The table is printed and written into a dated file, with the machine and the versions.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from arms import REFERENCES
from race import Arm, machine, machine_text, race
from start import first_steps, helps
from vez.bench.work import Workload
from vez.store import write_atomic

RESULTS = Path(__file__).parent / "results"
LOOK, LOOK_WARM = 2, 1  # rounds that choose the reference's setting


@dataclass(frozen=True)
class Row:
    """One line of the table; times in ``unit``. ``ratio``: how many times as fast vez is, and in single rounds."""

    what: str
    unit: str
    ours: tuple[float, float, float]
    theirs: tuple[float, float, float] | None
    ratio: tuple[float, float, float] | None
    memory: float | None
    target: str
    reference: str

    def line(self) -> str:
        """Markdown."""
        ratio = "" if self.ratio is None else f"**{self.ratio[0]:.2f}** ({self.ratio[1]:.2f} to {self.ratio[2]:.2f})"
        memory = "" if self.memory is None else f"{self.memory:.2f}"
        times = (_spread(self.ours), "" if self.theirs is None else _spread(self.theirs))
        cells = (self.what, self.unit, *times, ratio, memory, self.target, self.reference)
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| | unit | vez, median (range) | reference | times as fast (rounds) | peak ÷ its | target | its setting |\n"
    "|---|---|---|---|---|---|---|---|"
)


def _spread(times: Sequence[float]) -> str:
    digits = 3 if times[0] < 10 else 1
    return f"{times[0]:.{digits}f} ({times[1]:.{digits}f} to {times[2]:.{digits}f})"


def three(values: Sequence[float], scale: float = 1.0) -> tuple[float, float, float]:
    """Median, lowest, highest."""
    return statistics.median(values) * scale, min(values) * scale, max(values) * scale


_best: dict[tuple[str, str], str] = {}


def best(work: Workload) -> str:
    """The reference's fastest setting here for a base and a format, each tried alone: one is in memory at a time."""
    kind = (work.base, work.dtype)
    if kind in _best:
        return _best[kind]
    tried = {}
    for name in REFERENCES:
        alone = race([Arm(name, work)], warm=LOOK_WARM, rounds=LOOK)
        tried[name] = min(alone.seconds(alone.arms[0]))
        told(f"{name}: {1e3 * tried[name]:.0f} ms/step")
    _best[kind] = min(tried, key=lambda name: tried[name])
    return _best[kind]


def told(line: str) -> None:
    """Say what is going on to who waits."""
    print(line, file=sys.stderr, flush=True)


def trained(what: str, work: Workload, *, pairs: int, inner: int, target: str) -> Row:
    """A training step beside the reference's."""
    name = best(work)
    arms = [Arm(name, work), Arm("vez", work)]
    done = race(arms, warm=2, rounds=pairs, inner=inner)
    theirs, ours = (done.seconds(arm) for arm in arms)
    memory = arms[1].peak / arms[0].peak
    ratio = done.ratio(arms[0], arms[1])
    setting = name.removeprefix("reference, ")
    return Row(what, "ms/step", three(ours, 1e3), three(theirs, 1e3), ratio, memory, target, setting)


SD1 = Workload("sd1", 256, 1, (32,), "bf16", "cpu", 1)
TINY = Workload("tiny", 128, 8, (8,), "fp32", "cpu", 1)


def training(what: str, work: Workload, target: str, inner: int = 1) -> Callable[[int], list[Row]]:
    """A part of one row."""
    return lambda pairs: [trained(what, work, pairs=pairs, inner=inner, target=target)]


def variants(pairs: int) -> list[Row]:
    """Four variants in one pass beside four passes of one."""
    rows = []
    for dtype in ("fp32", "bf16"):
        one = replace(TINY, dtype=dtype)
        arms = [Arm("vez", one), Arm("vez", replace(one, ranks=(8,) * 4))]
        done = race(arms, warm=2, rounds=pairs, inner=2)
        alone, together = (done.seconds(arm) for arm in arms)
        ratio = tuple(4 * value for value in done.ratio(arms[0], arms[1]))
        what = f"four variants in one pass, tiny, batch 8, {dtype}"
        times = (three(together, 1e3), three(alone, 4e3), (ratio[0], ratio[1], ratio[2]))
        rows.append(Row(what, "ms for four", *times, arms[1].peak / arms[0].peak, "≥ 1.5", "four passes of vez"))
    return rows


def drawing(what: str, line: str) -> Callable[[int], list[Row]]:
    """Pictures, by bench/sampling.py."""

    def part(pairs: int) -> list[Row]:
        script = [sys.executable, str(Path(__file__).with_name("sampling.py")), *line.split(), "--pairs", str(pairs)]
        done = subprocess.run(script, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{what}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
        arms = _arms(done.stdout)
        ours = next(iter(arms.values()))
        name = min(list(arms)[1:], key=lambda one: arms[one][0])
        middle, low, high = arms[name][3:6]
        ratio, theirs = (1 / middle, 1 / high, 1 / low), arms[name][:3]
        return [Row(what, "s/picture", ours[:3], theirs, ratio, None, "≥ 1.5", name)]  # type: ignore[arg-type]

    return part


def _arms(printed: str) -> dict[str, tuple[float, ...]]:
    """What bench/sampling.py's table says: median, fastest, slowest, CPU seconds aside, vez's ratio with its range."""
    found = {}
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        numbers = re.findall(r"[0-9.]+", " ".join((*cells[1:4], cells[-1])))
        if line.startswith("|") and len(numbers) == 6:
            found[cells[0]] = tuple(float(number) for number in numbers)
    return found


def starting(pairs: int) -> list[Row]:
    """Seconds to the first word and to the first step."""
    fresh, again = first_steps(max(3, pairs // 2))
    asked = three(helps(pairs))
    nothing = (None, None, None)
    return [
        Row("`vez --help`", "s", asked, *nothing, "≤ 0.4 s", ""),
        Row("`vez study` on tiny to the first step, datasets built", "s", three(again), *nothing, "≤ 6 s", ""),
        Row("the same from nothing: two datasets are built and linted", "s", three(fresh), *nothing, "", ""),
    ]


WANTED = "≥ 1.6, memory ≤ 0.7"
PARTS: dict[str, Callable[[int], list[Row]]] = {
    "train-sd1": training("train SD 1.5's shape, 256², batch 1, bf16", SD1, WANTED),
    "train-sd1-2": training("the same, batch 2", replace(SD1, batch=2), WANTED),
    "train-tiny": training("train tiny, 128², batch 8, fp32", TINY, "≥ 2", 3),
    "train-tiny-bf16": training("the same, bf16", replace(TINY, dtype="bf16"), "≥ 2", 3),
    "variants": variants,
    "draw-tiny": drawing(
        "draw tiny, 128², batch 8, 8 steps", "--base tiny --size 128 --steps 8 --prompts 4 --against 3"
    ),
    "draw-sd1": drawing(
        "draw SD 1.5's shape, 256², batch 2, 4 steps",
        "--base sd1 --size 256 --steps 4 --batch 2 --prompts 1 --against 1",  # large calls, fused: the fastest of them
    ),
    "start": starting,
}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=PARTS, default=[*PARTS])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--to", type=Path, default=RESULTS)
    parser.add_argument("--setting", choices=REFERENCES, help="the reference's; absent: all are tried first")
    parser.add_argument("--join", type=Path, nargs="*", help="tables taken part by part on one machine, as one")
    options = parser.parse_args()
    if options.join:
        parts = [json.loads(file.read_bytes()) for file in options.join]
        rows = [_row(one) for part in parts for one in part["rows"]]
        write(options.to, parts[0]["machine"], rows, pairs=options.pairs, said="taken part by part", stem="table")
        return 0
    if options.setting:
        _best.update({(base, dtype): options.setting for base in ("tiny", "sd1") for dtype in ("fp32", "bf16")})
    began, found = perf_counter(), list[Row]()
    for name in options.only:
        told(f"{name} …")
        for row in PARTS[name](options.pairs):
            found.append(row)
            told(row.line())
    stem = "table" if options.only == [*PARTS] else f"table-{'-'.join(options.only)}"
    said = f"took {(perf_counter() - began) / 60:.0f} min"
    write(options.to, machine(), found, pairs=options.pairs, said=said, stem=stem)
    return 0


def _row(values: dict[str, Any]) -> Row:
    return Row(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def write(to: Path, of: dict[str, Any], rows: Sequence[Row], *, pairs: int, said: str, stem: str) -> None:
    """Print the table, and write it and its numbers."""
    head = f"# CPU table, {of['date']}\n\n{machine_text(of)}. {pairs} pairs; {said}."
    text = "\n".join([head, "", HEAD, *(row.line() for row in rows), ""])
    print(text)
    write_atomic(to / f"{of['date']}-{stem}.md", text.encode())
    values = {"machine": of, "pairs": pairs, "rows": [asdict(row) for row in rows]}
    write_atomic(to / f"{of['date']}-{stem}.json", (json.dumps(values, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
