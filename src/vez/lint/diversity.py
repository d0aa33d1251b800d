"""How varied a dataset is: effective numbers, a map with its holes, and what to add next.

The effective number is the Vendi score (Friedman and Dieng 2023, arXiv 2210.02410): the exponential of the entropy of
the eigenvalues of K/n, K (n, n) being how alike each two pictures are (1: the same). For labels, alike is the
Bhattacharyya coefficient Σ √(p·q) of what is thought of the two pictures: with sure labels the score is then the Hill
number of order 1 (Hill 1973), exp of the entropy of the labels' shares; and doubt that is the same about every picture
does not count as variety, as it would in the entropy of the mean.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vez.lint.artifact import Advice, Attribute, Map, Measure
from vez.lint.seen import Seen

Floats = NDArray[np.float64]
CONTROLLED: Final = 0.8
"""Named in at least this share of the pictures that show it: words control it."""
ABSORBED: Final = 0.2
"""Named in at most this share of them: the trigger absorbs it."""
_WORTH_TELLING: Final = 0.25  # an attribute on fewer pictures than this is left out of the table
_MOST_ADVICE: Final = 6
_MOST_OF_A_GROUP: Final = 2
_LEAST_GAIN: Final = 1.03
_BINS: Final = 4  # of each colour channel


def vendi(kernel: Floats) -> float:
    """The Vendi score of a kernel (n, n), symmetric, positive semi-definite, 1 on its diagonal; 0 for n = 0."""
    return _entropy_number(np.linalg.eigvalsh(kernel / max(1, len(kernel)))) if len(kernel) else 0.0


def vendi_of(features: Floats) -> float:
    """The Vendi score of the kernel F·Fᵀ for unit rows F (n, d); as cheap as d, however many pictures there are."""
    n, width = features.shape
    if not n:
        return 0.0
    smaller = features.T @ features if width < n else features @ features.T
    return _entropy_number(np.linalg.eigvalsh(smaller / n))


def _entropy_number(eigenvalues: NDArray[Any]) -> float:
    kept = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(kept * np.log(kept)).sum()))


def colour_features(pixels: NDArray[np.uint8]) -> Floats:
    """A picture (H, W, 3) as unit vector (64,): roots of the shares of its pixels in 4 × 4 × 4 boxes of RGB."""
    boxes = pixels.reshape(-1, 3).astype(np.int64) * _BINS // 256
    counts = np.bincount(boxes @ np.array([_BINS * _BINS, _BINS, 1]), minlength=_BINS**3)
    return np.asarray(np.sqrt(counts / max(1, counts.sum())))


def of_sources(sources: Sequence[int]) -> Measure:
    """Effective number of sources: pictures of one source are the same, others have nothing in common."""
    counts = np.array(list(Counter(sources).values()), dtype=np.float64)
    number = _entropy_number(counts / counts.sum()) if len(counts) else 0.0
    n = len(sources)
    return Measure("sources", number, n, n, n, "one file, group, page or original is one source")


def of_colours(features: Floats, *, of: int) -> Measure:
    """Effective number of palettes, from `colour_features` (n, 64) of n out of ``of`` pictures."""
    how = "overlap of the two pictures' colours (4 × 4 × 4 boxes of RGB)"
    return Measure("colours", vendi_of(features), len(features), len(features), of, how)


def of_group(seen: Seen, *, name: str = "") -> Measure | None:
    """Effective number of a group's labels; None where nothing is known of any picture."""
    return _measure(name or seen.group.plural, seen.shares, [label.name for label in seen.group.labels], seen.told_by)


def of_poses(pose: Seen, view: Seen | None) -> Measure | None:
    """Effective number of poses; of view × pose where the view is known of any picture."""
    if view is None or not view.known.any():
        return of_group(pose)
    both = np.einsum("ni,nj->nij", view.shares, pose.shares).reshape(len(pose.shares), -1)
    names = [f"{v.name}, {p.name}" for v in view.group.labels for p in pose.group.labels]
    return _measure("poses", both, names, pose.told_by)


def _measure(name: str, shares: Floats, labels: Sequence[str], told_by: Sequence[str]) -> Measure | None:
    known = shares.sum(axis=1) > 0
    if not known.any():
        return None
    mean = shares[known].mean(axis=0)
    return Measure(
        name,
        vendi_of(np.sqrt(shares[known])),
        min(len(labels), int(known.sum())),
        int(known.sum()),
        len(shares),
        "overlap of what is thought of the two pictures (Σ √(p·q))",
        {label: round(float(share), 4) for label, share in zip(labels, mean, strict=True) if share > 0.001},
        dict(Counter(who for who, is_known in zip(told_by, known, strict=True) if is_known)),
    )


def draw_map(framing: Seen, pose: Seen, view: Seen | None) -> Map | None:
    """Pictures by framing and by pose (view × pose where the view is known); None where no picture has both."""
    rows = [label.name for label in framing.group.labels]
    known, columns, place = framing.known & pose.known, [label.name for label in pose.group.labels], pose.labels
    name = pose.group.name
    if view is not None and view.known.any():
        known, place = known & view.known, view.labels * len(columns) + place
        columns, name = [f"{v.name}, {column}" for v in view.group.labels for column in columns], "view and pose"
    if not known.any():
        return None
    counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
    np.add.at(counts, (framing.labels[known], place[known]), 1)
    table = tuple(tuple(int(count) for count in line) for line in counts)
    return Map(framing.group.name, name, tuple(rows), tuple(columns), table, int(known.sum()), len(known))


def advise(seen: Mapping[str, Seen]) -> list[Advice]:
    """What to add, the most valuable first: what makes the effective number of its group grow most.

    By a tenth of the pictures more, at least one. At most two of a group, and no label that would not be noticed.
    """
    found: list[Advice] = []
    for of in seen.values():
        shares = of.shares[of.known]
        if not len(shares) or not any(label.advice for label in of.group.labels):
            continue
        more = max(1, round(0.1 * len(of.shares)))
        now = vendi_of(np.sqrt(shares))
        gains = []
        for i, label in enumerate(of.group.labels):
            if label.advice and of.can_hold(i):
                added = np.zeros((more, shares.shape[1]))
                added[:, i] = 1
                gain = vendi_of(np.sqrt(np.concatenate([shares, added]))) / now
                gains.append(Advice(label.advice, of.group.name, round(gain, 4), more))
        found += sorted(gains, key=lambda a: -a.gain)[:_MOST_OF_A_GROUP]
    worth = [advice for advice in found if advice.gain >= _LEAST_GAIN]
    return sorted(worth, key=lambda a: -a.gain)[:_MOST_ADVICE]


def attributes(seen: Mapping[str, Seen]) -> list[Attribute]:
    """Labels on a quarter of the pictures or more, and whether words or the trigger will hold them.

    The pictures are CLIP's part alone, the captions their own: only groups where CLIP was asked and is trusted.
    """
    found = []
    for of in seen.values():
        if of.clip is None:
            continue
        for i, label in enumerate(of.group.labels):
            on = of.clip == i
            said = np.array([i in named for named in of.named])
            if on.sum() < max(1.0, _WORTH_TELLING * len(on)):
                continue
            share = float((on & said).sum() / on.sum())
            verdict = "mixed"
            if share >= CONTROLLED:
                verdict = "controlled by words"
            elif share <= ABSORBED:
                verdict = "absorbed by the trigger"
            counts = (len(on), int(on.sum()), int(said.sum()), int((on & said).sum()))
            found.append(Attribute(of.group.name, label.name, *counts, verdict))
    return sorted(found, key=lambda a: (-a.pictures, a.named))


def commonest(of: Seen | None, *, few: int) -> tuple[str, int, int] | None:
    """(label, its pictures, pictures of which something is known); None where that is under half, or under ``few``."""
    if of is None or 2 * of.known.sum() < len(of.known) or of.known.sum() < few:
        return None
    label, count = Counter(of.labels[of.known].tolist()).most_common(1)[0]
    return of.group.labels[label].name, count, int(of.known.sum())
