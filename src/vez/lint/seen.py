"""What is known of each picture: told by its crop, else by its caption, else by CLIP where CLIP can be trusted.

A caption comes before CLIP, since a person or a captioner looked at this very picture. And captions check CLIP: where
they name labels and CLIP's answers agree with them no better than chance would, CLIP is not asked about that group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vez.dataset import Row
from vez.lint.artifact import Trust
from vez.lint.labels import FRAMING, GROUPS, SOMEBODY, Group
from vez.lint.looks import Sight

CHECKED: Final = 4
"""Captions that must name a label before they can check CLIP."""
_KAPPA: Final = 0.4  # "moderate agreement" (Landis and Koch 1977)
_PEOPLE: Final = 0.2  # share of captions that name somebody, from which on groups about people mean something
_CROPS: Final = {"upper": "half", "lower": "detail"}


@dataclass(frozen=True, eq=False)
class Seen:
    """One group over N pictures. ``shares`` (N, labels): rows sum to 1, or to 0 where nothing is known."""

    group: Group
    shares: NDArray[np.float64]
    told_by: tuple[str, ...]
    """For each picture: crop, caption, CLIP, or empty."""
    named: tuple[tuple[int, ...], ...]
    """For each picture the labels that its caption names."""
    clip: NDArray[np.int64] | None
    """For each picture CLIP's label; None where CLIP is not to be trusted or was not asked."""
    trust: Trust

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) whether anything is known."""
        return np.asarray(self.shares.sum(axis=1) > 0)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) the likeliest label; means nothing where nothing is known."""
        return np.asarray(self.shares.argmax(axis=1))

    def can_hold(self, label: int) -> bool:
        """Whether pictures of this label would be noticed: some picture has it, or CLIP knows it."""
        return bool(self.shares[:, label].any()) or self.group.labels[label].name not in self.trust.unknown


def see(rows: Sequence[Row], sights: Mapping[str, Sight] | None, groups: Sequence[Group] = GROUPS) -> dict[str, Seen]:
    """What is known of the rows, by group; ``sights`` is CLIP's opinion on them, None where no CLIP looked.

    Groups about people are left out where hardly any caption names somebody.
    """
    somebody = sum(SOMEBODY.search(row.caption) is not None for row in rows)
    people = somebody >= _PEOPLE * len(rows) and somebody > 0
    return {
        group.name: _seen(group, rows, None if sights is None else sights.get(group.name))
        for group in groups
        if people or not group.of_people
    }


def _seen(group: Group, rows: Sequence[Row], sight: Sight | None) -> Seen:
    named = tuple(tuple(group.named(row.caption)) for row in rows)
    trust = _trust(group, named, sight)
    trusted = sight is not None and trust.state in ("agrees", "unchecked")
    shares = np.zeros((len(rows), len(group.labels)))
    told_by = []
    names = [label.name for label in group.labels]
    for i, row in enumerate(rows):
        if group is FRAMING and row.crop in _CROPS:
            shares[i, names.index(_CROPS[row.crop])] = 1
            told_by.append("crop")
        elif len(named[i]) == 1:
            shares[i, named[i][0]] = 1
            told_by.append("caption")
        elif trusted and sight is not None:
            shares[i] = sight.shares[i]
            told_by.append("CLIP")
        else:
            told_by.append("")
    clip = np.asarray(sight.shares.argmax(axis=1)) if trusted and sight is not None else None
    return Seen(group, shares, tuple(told_by), named, clip, trust)


def _trust(group: Group, named: Sequence[tuple[int, ...]], sight: Sight | None) -> Trust:
    if sight is None or not sight.usable:
        return Trust(group.name, "unasked", unknown=() if sight is None else sight.unknown)
    answers = sight.shares.argmax(axis=1).tolist()
    able = {i for i, label in enumerate(group.labels) if label.name not in sight.unknown}
    pairs = [(of[0], answer) for of, answer in zip(named, answers, strict=True) if len(of) == 1 and of[0] in able]
    n, agree = len(pairs), sum(said == answer for said, answer in pairs)
    said, answered = (np.bincount([pair[k] for pair in pairs], minlength=len(group.labels)) for k in (0, 1))
    chance = float(said @ answered) / n**2 if n else 0.0
    if n < CHECKED:
        state = "unchecked"
    else:
        share = agree / n
        agrees = share >= 0.8 or (chance < 1 and (share - chance) / (1 - chance) >= _KAPPA)
        state = "agrees" if agrees else "disagrees"
    return Trust(group.name, state, n, agree, chance, sight.unknown)
