"""A study's search: every variant with every combination of the settings that ``vary`` lists, or an even subset.

A subset is chosen as a low-discrepancy sequence walks the grid, so that a few combinations already hold every value of
every setting about equally often, and a larger subset contains a smaller one. The sequence is R (Roberts 2018, "The
unreasonable effectiveness of quasirandom sequences"): Kronecker's, with the powers of the inverse of the d-dimensional
golden ratio.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

LARGEST_GRID = 10_000


def spread(variants: Mapping[str, Any], vary: Mapping[str, Sequence[Any]], *, pick: int | None) -> dict[str, Any]:
    """The variants' tables by name: each of ``variants`` once for every combination, named after what it was given.

    Args:
        variants: tables as they stand in the file.
        vary: setting → the values to try.
        pick: how many combinations, spread evenly over the grid; None for all.
    Raises:
        ValueError: an empty or repeated value, a setting that a variant sets itself, or more than `LARGEST_GRID`.
    """
    for setting, values in vary.items():
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f"vary.{setting} is a list of values to try, as [4, 16, 64], not {values!r}")
        if any(values.count(value) > 1 for value in values):
            raise ValueError(f"vary.{setting} has a value twice; leave one out")
        owner = next((name for name, table in variants.items() if isinstance(table, dict) and setting in table), None)
        if owner is not None:
            raise ValueError(f"the variant {owner} sets {setting}, which vary lists too; leave one of them out")
    sizes = [len(values) for values in vary.values()]
    total = 1
    for size in sizes:
        total *= size
    if total > LARGEST_GRID:
        raise ValueError(f"vary comes to {total} combinations, more than {LARGEST_GRID}; list fewer values")
    places = list(product(*map(range, sizes))) if pick is None or pick >= total else subset(sizes, pick)
    found: dict[str, Any] = {}
    for name, table in variants.items():
        for place in places:
            given = {setting: values[i] for (setting, values), i in zip(vary.items(), place, strict=True)}
            label = ".".join([name, *(f"{setting}-{written(value)}" for setting, value in given.items())])
            found[label] = {**table, **given} if isinstance(table, dict) else table
    return found


def subset(sizes: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """``count`` different cells of a grid of these sizes, as the R sequence meets them.

    Raises ValueError for more cells than there are.
    """
    cells = 1
    for size in sizes:
        cells *= size
    if count > cells:
        raise ValueError(f"a grid of {cells} cells has no {count} of them")
    ratio = golden(len(sizes))
    steps = [ratio ** -(i + 1) for i in range(len(sizes))]
    met: dict[tuple[int, ...], None] = {}
    point = [0.5] * len(sizes)
    while len(met) < count:
        met.setdefault(tuple(int(x * size) for x, size in zip(point, sizes, strict=True)))
        point = [(x + step) % 1.0 for x, step in zip(point, steps, strict=True)]
    return list(islice(met, count))


def golden(dimensions: int) -> float:
    """The root above 1 of x^(d+1) = x + 1: 1.618… for one dimension, 1.325… for two."""
    x = 1.5
    for _ in range(64):
        x = (1 + x) ** (1 / (dimensions + 1))
    return x


def written(value: Any) -> str:
    """A value as part of a variant's name, which is a folder's: letters, digits, dot, dash, underscore."""
    text = f"{value:g}" if isinstance(value, float) else str(value).lower()
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_") or "_"
