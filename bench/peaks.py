"""Peaks of memory, measured: `python bench/peaks.py tests/golden/peaks.json` writes those that vez.room is held to.

A process for each row makes three steps. The rows of "fit" are what the prediction's constants may be fitted to; those
of "check" were never used for it, and are what says how good it is.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from race import machine, machine_text
from vez.bench.work import Workload, measured

SD1 = Workload("sd1", 256, 1, (32,), "bf16", "cpu", 1)
TINY = Workload("tiny", 128, 4, (8,), "fp32", "cpu", 1)
FIT = (
    SD1,
    replace(SD1, batch=4),
    replace(SD1, size=512),
    replace(SD1, dtype="fp32"),
    replace(SD1, batch=4, checkpointing="selective"),
    replace(SD1, size=512, checkpointing="whole"),
    TINY,
    replace(TINY, batch=16, ranks=(8, 8)),
    replace(TINY, batch=16, dtype="bf16"),
)
CHECK = (
    replace(SD1, batch=2, ranks=(64,)),
    replace(SD1, batch=4, dtype="fp32"),
    replace(SD1, size=512, batch=3),
    replace(SD1, size=512, batch=2, checkpointing="selective"),
    replace(SD1, batch=4, checkpointing="whole"),
    replace(SD1, ranks=(32, 64)),
    replace(TINY, batch=8, ranks=(32,)),
    replace(TINY, batch=8, ranks=(8, 8, 8, 8)),
    replace(TINY, size=256, batch=8, dtype="bf16"),
)


def row(work: Workload) -> dict[str, Any]:
    """One row of the file."""
    found = {name: getattr(work, name) for name in ("base", "size", "batch", "ranks", "dtype")}
    if work.checkpointing != "none":
        found["checkpointing"] = work.checkpointing
    found["peak_bytes"] = measured(work).peak_bytes
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("to", type=Path)
    parser.add_argument("--only", choices=("fit", "check"))
    given = parser.parse_args()
    sets = {name: rows for name, rows in {"fit": FIT, "check": CHECK}.items() if given.only in (None, name)}
    before = json.loads(given.to.read_bytes()) if given.only else {}
    made = {name: [row(work) for work in rows] for name, rows in sets.items()}
    about = {"command": "python bench/peaks.py tests/golden/peaks.json", "machine": machine_text(machine())}
    lines = [f' "{name}": {json.dumps(text)},' for name, text in about.items()]
    for name, rows in (before | made).items():
        if name in ("fit", "check"):
            lines += [f' "{name}": [', ",\n".join(f"  {json.dumps(one)}" for one in rows), " ],"]
    given.to.write_text("{\n" + "\n".join(lines).rstrip(",") + "\n}\n", encoding="utf-8")
