"""The control with shuffled captions: the same pictures, and each has another one's caption."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from vez.dataset import Dataset, load
from vez.dataset.rows import KIND, Row, write_lines
from vez.errors import ConfigError
from vez.store import artifact_id, find, making, open_artifact

SEED: Final = 0
"""Of the permutation; the same for every study, so that a control can be made again."""

VERSION: Final = 1
"""Counts up when the same dataset would be shuffled otherwise."""

_OWN, _SAME_SOURCE = 1e6, 1e3


def permutation(rows: Sequence[Row], *, name: str) -> list[int]:
    """For each training picture, whose caption it gets: never a text equal to its own.

    Another crop of the same source gives its caption only where there is no other way. Of the permutations that are
    left, one at random (a least-cost assignment over random costs, so the same on every machine).

    Raises:
        ConfigError: there are fewer than two pictures, or one text stands under more than half of them, so that some
            would keep it.
    """
    if len(rows) < 2:
        raise ConfigError(
            f"controls has shuffled, and {name} trains on {_many(len(rows))}: captions are shuffled among at least "
            'two; add pictures, or leave "shuffled" out'
        )
    text, times = Counter(" ".join(row.caption.split()) for row in rows).most_common(1)[0]
    if 2 * times > len(rows):
        raise ConfigError(
            f"controls has shuffled, and {times} of {name}'s {_many(len(rows))} have one caption ({text[:60]!r}): some "
            'would keep it however they are shuffled; caption them apart, or leave "shuffled" out'
        )
    captions = np.array([" ".join(row.caption.split()) for row in rows])
    sources = np.array([row.source_sha256 for row in rows])
    costs = np.random.default_rng(SEED).random((len(rows), len(rows)))
    costs += _SAME_SOURCE * (sources[:, None] == sources) + _OWN * (captions[:, None] == captions)
    return [int(i) for i in linear_sum_assignment(costs)[1]]


def shuffled(dataset: Dataset, into: Path) -> Dataset:
    """The dataset with its training captions shuffled, as an artifact at ``into``; made once.

    Held-out pictures keep theirs. Raises ConfigError as `permutation`, StoreError where nothing can be written.
    """
    order = permutation(dataset.train, name=dataset.name)
    parents, config = {"dataset": dataset.id}, {**dataset.config, "captions": "shuffled", "seed": SEED}
    if find(into, artifact_id(KIND, parents, config, VERSION)) is None:
        given = dict(zip(dataset.train, [dataset.train[i].caption for i in order], strict=True))
        with making(into, kind=KIND, parents=parents, config=config, version=VERSION) as made:
            for file in open_artifact(dataset.path).files:
                if file not in ("rows.jsonl", "card.md"):  # what tells of captions
                    (made.path / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(dataset.path / file, made.path / file)
            rows = (replace(row, caption=given.get(row, row.caption)) for row in dataset.rows)
            write_lines(made.path / "rows.jsonl", [row.table for row in rows])
    return load(into)


def _many(pictures: int) -> str:
    return f"{pictures} picture{'' if pictures == 1 else 's'}"
