"""Do two pictures show the same photograph, moved, cropped, mirrored or resized? Correlation over shifts and scales.

Normalised cross-correlation over every shift, of what overlaps only: D. Padfield, "Masked Object Registration in the
Fourier Domain" (IEEE TIP 2012). The masks of whole pictures are rectangles, so the sums over an overlap come from
summed-area tables instead of further transforms. What is correlated is detail (a difference of two Gaussian blurs):
flat or dark backgrounds have none, and cannot make strangers alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
Grey = NDArray[np.uint8]
Index = NDArray[np.intp]

SIDE: Final = 96  # a picture is compared at about SIDE² pixels, in its own shape
_SHORTEST: Final = 16
_LONGEST: Final = 2 * SIDE
_COARSE: Final = 32  # ... and looked through at about _COARSE²
# Relative sizes looked through: each side of a copy may have lost up to a quarter, and then been resized.
_SCALES: Final = (1.0, 0.93, 0.865, 0.805, 0.75)
_REFINED: Final = (-0.04, -0.027, -0.014, 0.0, 0.014, 0.027, 0.04)  # changes of the best of them, looked at closely
_STEPS: Final = (0.5, 0.5, 0.25, 0.25, 0.125)  # in pixels
_WORTH_ALIGNING: Final = 0.8
_DETAIL: Final = {_COARSE: (0.6, 2.5), SIDE: (0.8, 4.0)}  # sigmas of the two blurs, in pixels
_MARGIN: Final = {_COARSE: 1, SIDE: 3}  # where detail depends on what lies beyond the border
_OVERLAP: Final = 0.5  # least overlap, as a share of the smaller picture's area
_EVIDENCE: Final = 0.25  # least share of each picture's detail that lies in the overlap
_PROMISING: Final = 0.65  # least coarse correlation that is worth a close look
_AT_ONCE: Final = 256  # pairs


@dataclass(frozen=True)
class Match:
    """Two pictures by their places in the sequence, ``earlier`` < ``later``, and how well they agree."""

    earlier: int
    later: int
    mirrored: bool
    score: float
    """The lesser of two correlations where they overlap: of brightness and of detail."""


@dataclass(frozen=True)
class _Guess:
    """A promising pair: ``query``, mirrored or not and resized by ``scale``, may lie somewhere over ``base``."""

    query: int
    base: int
    mirrored: bool
    scale: float
    score: float


def grey(image: Image.Image) -> Grey:
    """A picture as it is compared: grey, about SIDE² pixels in its own shape, (h, w)."""
    scale = SIDE / float(np.sqrt(image.width * image.height))
    width, height = (int(np.clip(round(side * scale), _SHORTEST, _LONGEST)) for side in image.size)
    return np.asarray(image.convert("L").resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0))


def coarse(greys: Sequence[Grey]) -> list[Array]:
    """Every picture at about _COARSE² pixels, 0 to 255."""
    sizes = [[max(4, round(side * _COARSE / SIDE)) for side in g.shape] for g in greys]
    return [
        np.asarray(Image.fromarray(g).resize((w, h), Image.Resampling.BOX), dtype=np.float32)
        for g, (h, w) in zip(greys, sizes, strict=True)
    ]


def matches(greys: Sequence[Grey], pairs: Index, *, least: float) -> Iterator[Match]:
    """Those of ``pairs`` (P, 2) whose score is at least ``least`` at some shift and scale, in either mirroring."""
    for guesses in _promising(coarse(greys), pairs):
        score, guess = max(
            ((_verified(greys[g.query], greys[g.base], g), g) for g in guesses), key=lambda pair: pair[0]
        )
        if score >= least:
            yield Match(min(guess.query, guess.base), max(guess.query, guess.base), guess.mirrored, score)


def _promising(small: Sequence[Array], pairs: Index) -> Iterator[list[_Guess]]:
    """The pairs whose detail agrees at a coarse look, each with its best scale, one guess for either mirroring.

    Both, because what is symmetric looks like its mirror image until it is looked at closely.
    """
    groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[tuple[int, int]]] = {}
    for i, j in pairs.tolist():
        groups.setdefault((small[i].shape, small[j].shape), []).append((i, j))
    for group in groups.values():
        for start in range(0, len(group), _AT_ONCE):
            block = group[start : start + _AT_ONCE]
            sides = tuple(np.stack([small[pair[k]] for pair in block]) for k in (0, 1))
            best: dict[tuple[int, bool], _Guess] = {}
            for k in (0, 1):
                whole = _detail(sides[k], 1.0, _COARSE)
                still = _Still.of(_detail(sides[1 - k], 1.0, _COARSE), whole.shape[1:])
                for scale in _SCALES[k:]:  # equal sizes need no second look
                    query = _detail(sides[k], scale, _COARSE)
                    for mirrored in (False, True):
                        scores, _, _ = _over_shifts(query[:, :, ::-1] if mirrored else query, still)
                        for at in np.flatnonzero(scores > _PROMISING).tolist():
                            known = best.get((at, mirrored))
                            if known is None or scores[at] > known.score:
                                pair = block[at]
                                best[at, mirrored] = _Guess(pair[k], pair[1 - k], mirrored, scale, float(scores[at]))
            for at in range(len(block)):
                if guesses := [best[at, m] for m in (False, True) if (at, m) in best]:
                    yield guesses


def _verified(query: Grey, base: Grey, guess: _Guess) -> float:
    """The score of a promising pair at SIDE, at the best shift and scale near the guess, to fractions of a pixel."""
    moving, still = query[None].astype(np.float32), base[None].astype(np.float32)
    if guess.mirrored:
        moving = moving[:, :, ::-1]
    detail, best = _detail(still, 1.0, SIDE), (-1.0, 0.0, 0.0, 1.0)
    fixed = _Still.of(detail, _detail(moving, guess.scale * (1 + _REFINED[-1]), SIDE).shape[1:])
    for change in _REFINED:
        scale = guess.scale * (1 + change)
        (score,), (dy,), (dx,) = _over_shifts(_detail(moving, scale, SIDE), fixed)
        best = max(best, (float(score), float(dy), float(dx), scale))
    if best[0] < _WORTH_ALIGNING:
        return best[0]
    score, dy, dx, scale = _aligned(moving, detail[0], best)
    sigma = _DETAIL[SIDE][0]
    moved = _filtered(moving, scale, sigma, (dy % 1, dx % 1))[0]
    return min(score, _agreement(moved, _filtered(still, 1.0, sigma, (0.0, 0.0))[0], int(dy // 1), int(dx // 1)))


def _aligned(
    moving: Array, still: Array, start: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """(score, dy, dx, scale) improved step by step from ``start``."""

    def scored(dy: float, dx: float, scale: float) -> tuple[float, float, float, float]:
        moved = _detail(moving, scale, SIDE, (dy % 1, dx % 1))[0]
        return _agreement(moved, still, int(dy // 1), int(dx // 1)), dy, dx, scale

    best = scored(*start[1:])
    for step in _STEPS:
        for y, x, s in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
            # about the middle, so that a change of scale moves nothing
            by = step * s * 2 / SIDE
            middle = [side * best[3] * by / 2 for side in moving.shape[1:]]
            best = max(best, scored(best[1] + step * y - middle[0], best[2] + step * x - middle[1], best[3] * (1 + by)))
    return best


def _agreement(moved: Array, still: Array, dy: int, dx: int) -> float:
    """Correlation of two pictures where they overlap, ``moved`` by (dy, dx)."""
    (h, w), (bottom, right) = moved.shape, still.shape
    a = moved[max(0, -dy) : min(h, bottom - dy), max(0, -dx) : min(w, right - dx)]
    b = still[max(0, dy) : min(bottom, h + dy), max(0, dx) : min(right, w + dx)]
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / norm if norm > 0 else 0.0


@dataclass(frozen=True)
class _Still:
    """Detail of pictures (P, H, W) that others are moved over, and what is the same for every one of these."""

    detail: Array
    size: tuple[int, int]
    """Of the transforms."""
    wave: NDArray[np.complex64]
    squares: Array
    """detail²; its sum over an overlap is the energy there."""
    energy: Array
    """(P, 1, 1): sum of the squares."""

    @staticmethod
    def of(detail: Array, query: tuple[int, ...]) -> "_Still":
        """To move queries over that are no larger than (h, w)."""

        from scipy import fft

        sizes = [
            fft.next_fast_len(m + n - _least(n, m), real=True) for n, m in zip(query, detail.shape[1:], strict=True)
        ]
        squares = detail**2
        energy = squares.sum(axis=(1, 2), keepdims=True)
        return _Still(detail, (sizes[0], sizes[1]), fft.rfft2(detail, sizes), squares, energy)


def _over_shifts(query: Array, still: _Still) -> tuple[Array, Index, Index]:
    """The best normalised correlation of each query (P, h, w) with its still picture over all shifts, and the shift.

    Detail has no mean to speak of. A shift counts if enough area and enough of either's detail lies in the overlap.
    """

    from scipy import fft

    h, w, bottom, right = *query.shape[1:], *still.detail.shape[1:]
    y, x = _shifts(h, bottom), _shifts(w, right)
    cross = fft.irfft2(still.wave * np.conj(fft.rfft2(query, still.size)), still.size)
    cross = cross[:, y.by % still.size[0]][:, :, x.by % still.size[1]]
    squares = query**2
    moved = y.query @ squares @ x.query.T  # (P, shifts, shifts): energy in each overlap
    under = y.still @ still.squares @ x.still.T
    enough = y.still.sum(axis=1)[:, None] * x.still.sum(axis=1) >= _OVERLAP * min(h * w, bottom * right)
    enough = enough & (moved >= _EVIDENCE * squares.sum(axis=(1, 2), keepdims=True) + 1)
    enough &= under >= _EVIDENCE * still.energy + 1
    score = np.where(enough, cross / np.sqrt(np.maximum(moved * under, 1)), -1).reshape(len(query), -1)
    at = score.argmax(axis=1)
    return score[np.arange(len(score)), at], y.by[at // len(x.by)], x.by[at % len(x.by)]


@dataclass(frozen=True)
class _Shifts:
    """The shifts along one axis that overlap enough; which places each leaves in the overlap, as rows of 0 and 1."""

    by: Index
    query: Array
    still: Array


@lru_cache(maxsize=1024)
def _shifts(n: int, m: int) -> _Shifts:
    """Of a query of ``n`` places over a still picture of ``m``."""
    by = np.arange(_least(n, m) - n, m - _least(n, m) + 1)
    query, still = np.arange(n) + by[:, None], np.arange(m) - by[:, None]
    return _Shifts(by, ((query >= 0) & (query < m)).astype(np.float32), ((still >= 0) & (still < n)).astype(np.float32))


def _least(n: int, m: int) -> int:
    """Least overlap along one axis: it can't be less where the area is to be enough."""
    return int(np.ceil(_OVERLAP * min(n, m)))


def _detail(pictures: Array, scale: float, side: int, by: tuple[float, float] = (0.0, 0.0)) -> Array:
    """Detail of pictures (P, h, w) resized by ``scale`` and moved ``by`` a fraction: the difference of two blurs."""
    fine, wide = (_filtered(pictures, scale, sigma, by) for sigma in _DETAIL[side])
    m = _MARGIN[side]
    return (fine - wide)[:, m:-m, m:-m]


def _filtered(pictures: Array, scale: float, sigma: float, by: tuple[float, float]) -> Array:
    rows, columns = (_lens(n, scale, sigma, part) for n, part in zip(pictures.shape[1:], by, strict=True))
    return (rows @ pictures @ columns.T).astype(np.float32, copy=False)


@lru_cache(maxsize=4096)
def _lens(n: int, scale: float, sigma: float, by: float) -> Array:
    """Matrix (n·scale, n) that resizes, blurs and moves one axis at once; ``sigma``, ``by``: pixels of the result."""
    centres = (np.arange(max(1, int(n * scale))) + 0.5 - by) / scale - 0.5
    weights = np.exp(-0.5 * ((np.arange(n) - centres[:, None]) * scale / sigma) ** 2)
    lens: Array = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return lens
