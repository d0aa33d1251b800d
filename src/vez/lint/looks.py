"""What CLIP makes of the pictures: which label of a group holds, whose caption fits, which two show one scene.

All of it is CLIP's opinion. What a CLIP cannot know it is not asked: a phrase counts only if each of its words is one
whole token of that CLIP's vocabulary.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vez.lint.labels import AROUND, BACKGROUND, FRAMING, GROUPS, Group
from vez.metrics.embed import Clip, text_features

Floats = NDArray[np.float64]
Pictures = NDArray[np.float32]
"""CLIP's unit vectors of pictures, (N, D)."""
_PLACES: Final = 4  # surroundings that do for other groups than framing, where the place decides most
_BLOCK: Final = 512  # pictures compared with all captions at a time
SAME_WORDS: Final = 0.97
"""Cosine of two captions' CLIP vectors above which they say the same to CLIP: neither can misfit for the other."""

SURE: Final = 2.0
"""CLIP's scale times the cosine by which another caption must fit better."""


@dataclass(frozen=True, eq=False)
class Sight:
    """CLIP's opinion on one group: ``shares`` (N, labels) sum to 1 in a row; 0 for a label it has no words for."""

    group: Group
    shares: Floats
    unknown: tuple[str, ...]
    """Labels it has no words for."""

    @property
    def usable(self) -> bool:
        """Whether there is a choice at all."""
        return len(self.group.labels) - len(self.unknown) > 1


@dataclass(frozen=True)
class Misfit:
    """A picture (by its place) whose own caption is only the ``rank``-th best of ``of``; ``better`` is the best one."""

    place: int
    rank: int
    of: int
    better: str


def sights(clip: Clip, pictures: Pictures, groups: Sequence[Group] = GROUPS) -> dict[str, Sight]:
    """CLIP's opinion on every group about pictures given as unit vectors (N, D).

    A label's chance is the mean over its phrases and their surroundings of exp(s · cosine), s being this CLIP's own
    scale: surroundings that are not on the picture weigh nothing, so "upper body" is judged where the person stands.
    """
    places = [found[0] for label in BACKGROUND.labels if (found := [p for p in label.asked if known(clip, p)])]
    scale = float(clip.model.logit_scale.exp())
    return {group.name: _sight(clip, group, pictures, places, scale) for group in groups}


def known(clip: Clip, phrase: str) -> bool:
    """Whether every word of the phrase is one whole token of this CLIP."""
    vocabulary = _vocabulary(clip)
    return all(f"{word}</w>" in vocabulary for word in re.findall(r"[^\W_]+", phrase.lower()))


def _vocabulary(clip: Clip) -> Mapping[str, int]:
    vocabulary: Mapping[str, int] = clip.tokenizer.get_vocab()
    return vocabulary


def _sight(clip: Clip, group: Group, pictures: Pictures, places: Sequence[str], scale: float) -> Sight:
    around = [words for words in AROUND if known(clip, words)]
    where = places if group is FRAMING else places[:_PLACES]
    asked: list[list[str]] = []
    for label in group.labels:
        phrases = [phrase for phrase in label.asked if known(clip, phrase)]
        if group.among == "people":
            asked.append([f"{words}{phrase}" for phrase in phrases for words in around])
        else:
            asked.append([f"{phrase}, {place}" for phrase in phrases for place in where] if where else phrases)
    texts = text_features(clip, [text for of in asked for text in of])
    shares = np.zeros((len(pictures), len(asked)))  # (N, labels)
    fits = scale * (pictures.astype(np.float64) @ texts.T.astype(np.float64))  # (N, texts)
    start = 0
    for i, of in enumerate(asked):
        if of:
            shares[:, i] = np.exp(fits[:, start : start + len(of)] - scale).mean(axis=1)
        start += len(of)
    total = shares.sum(axis=1, keepdims=True)
    unknown = tuple(label.name for label, of in zip(group.labels, asked, strict=True) if not of)
    return Sight(group, np.divide(shares, total, out=np.zeros_like(shares), where=total > 0), unknown)


def misfits(
    clip: Clip, pictures: Pictures, captions: Sequence[str], sources: Sequence[int], *, best: int
) -> list[Misfit]:
    """Pictures whose own caption is not among the ``best`` of all captions (Hessel et al. 2021: CLIPScore's valid use).

    Better is what CLIP, by its own scale, holds for e² times as likely (`SURE`). Captions that say the same to it
    (`SAME_WORDS`) and captions of the same source count as the own one.

    Args:
        clip: who judges.
        pictures: unit vectors (N, D).
        captions: N texts without the trigger word.
        sources: N numbers; pictures of one source have the same.
        best: the rank that is good enough.
    """
    texts = list(dict.fromkeys(captions))
    place = {text: i for i, text in enumerate(texts)}
    own = np.array([place[caption] for caption in captions], dtype=np.int64)
    said = text_features(clip, texts)  # (M, D)
    holders: dict[int, set[int]] = {}
    for source, text in zip(sources, own.tolist(), strict=True):
        holders.setdefault(source, set()).add(text)
    margin, found = SURE / float(clip.model.logit_scale.exp()), []
    for start in range(0, len(own), _BLOCK):
        mine = own[start : start + _BLOCK]
        fits = pictures[start : start + _BLOCK] @ said.T  # (B, M)
        better = fits > np.take_along_axis(fits, mine[:, None], axis=1) + margin
        better &= said[mine] @ said.T < SAME_WORDS
        for i, row in enumerate(better):
            row[list(holders[sources[start + i]])] = False
            rank = 1 + int(row.sum())
            if rank > best:
                first = int(np.where(row, fits[i], -np.inf).argmax())
                found.append(Misfit(start + i, rank, len(texts), texts[first]))
    return found


def nearest(pictures: Pictures, others: Pictures) -> list[tuple[int, float]]:
    """For each picture (N, D) the most alike of ``others`` (M, D): (its place, cosine); empty where M is 0."""
    if not len(others):
        return []
    found: list[tuple[int, float]] = []
    for start in range(0, len(pictures), _BLOCK):
        alike = pictures[start : start + _BLOCK] @ others.T  # (B, M)
        best = alike.argmax(axis=1)
        found += [(int(j), float(row[j])) for row, j in zip(alike, best, strict=True)]
    return found
