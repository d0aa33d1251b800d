"""Peaks of memory, measured: `python bench/peaks.py tests/golden/peaks.json` writes those that vez.room is held to.

A process for each row makes two steps. The rows of "fit" are what the prediction's constants may be fitted to; those
of "check" were never used for it, and are what says how good it is.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from race import Arm, machine, machine_text
from vez.bench.work import Workload

SD1 = Workload("sd1", 256, 1, (32,), "bf16", "cpu", 1)
TINY = Workload("tiny", 128, 4, (8,), "fp32", "cpu", 1)
FIT = (
    SD1,
    replace(SD1, batch=4),
    replace(SD1, size=512),
    replace(SD1, dtype="fp32"),
    replace(SD1, batch=2, checkpointing="selective"),
    replace(SD1, batch=2, checkpointing="whole"),
    TINY,
    replace(TINY, batch=16, ranks=(8, 8)),
)
CHECK = (
    replace(SD1, batch=2, ranks=(64,)),
    replace(SD1, batch=2, dtype="fp32"),
    replace(SD1, size=512, checkpointing="selective"),
    replace(SD1, batch=4, checkpointing="whole"),
    replace(SD1, ranks=(32, 64)),
    replace(TINY, batch=8, ranks=(32,)),
    replace(TINY, batch=8, ranks=(8, 8, 8, 8)),
    replace(TINY, size=256, batch=8, dtype="bf16"),
    replace(SD1, quantize="int8"),
)
STEPS = 2  # the second has the moments beside all else


def row(work: Workload) -> dict[str, Any]:
    """One row of the file."""
    found = {name: getattr(work, name) for name in ("base", "size", "batch", "ranks", "dtype")}
    found |= {name: value for name in ("checkpointing", "quantize") if (value := getattr(work, name)) != "none"}
    arm = Arm("vez", work)
    arm.start()
    arm.step(STEPS)
    arm.close()
    found["peak_bytes"] = arm.peak
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("to", type=Path)
    parser.add_argument("--only", nargs="*", help="rows, as fit:0 check:3; absent: all")
    given = parser.parse_args()
    wanted = {"fit": FIT, "check": CHECK}
    made = json.loads(given.to.read_bytes()) if given.only else {name: [None] * len(of) for name, of in wanted.items()}
    for name, works in wanted.items():
        for i, work in enumerate(works):
            if given.only is None or f"{name}:{i}" in given.only:
                made[name][i] = row(work)
    lines = ['"command": "python bench/peaks.py tests/golden/peaks.json"']
    lines += [f'"machine": {json.dumps(machine_text(machine()))}']
    lines += [f'"{name}": [\n  ' + ",\n  ".join(json.dumps(one) for one in made[name]) + "\n ]" for name in wanted]
    given.to.write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")
