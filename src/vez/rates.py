"""Seconds per step and per image as this machine was seen to take them: kept in .vez/rates.json for the next plan."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from vez.store import write_atomic

FEWEST = 5  # a rate from fewer than this would mostly be the first one's, which also warms up


def read(root: Path) -> dict[str, float]:
    """Name of what was timed → seconds; ``root`` is the project's folder."""
    try:
        rates = json.loads((root / ".vez" / "rates.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return {}  # no run yet, or a torn file: a rate is a convenience and is measured again
    return {str(key): float(value) for key, value in rates.items()} if isinstance(rates, dict) else {}


def record(root: Path, key: str, seconds: Sequence[float]) -> None:
    """Keep the median, unless it comes of too few. Raises StoreError where it cannot be written."""
    if len(seconds) >= FEWEST:
        rates: Mapping[str, float] = read(root) | {key: median(seconds)}
        write_atomic(root / ".vez" / "rates.json", json.dumps(rates, indent=1, sort_keys=True).encode())
