"""Arithmetic on LoRAs without the model they are for: sums, smaller ranks, norms.

A module's delta is (out, in·k·k) of rank r, and everything here works on its two thin factors: QR of each, then the
singular values of an r×r matrix, in double precision. The full matrix is never made.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from vez.errors import LoraFileError
from vez.files.names import Place
from vez.files.reading import LoraFile
from vez.files.writing import shaped
from vez.interop import LoraWeights


@dataclass(frozen=True)
class Keep:
    """How much of a module is kept: the smallest rank that satisfies all that is given, at least 1.

    ``rank`` is the most; ``energy`` the share of the squared singular values (kohya's sv_fro is its square root);
    ``ratio``: singular values below the largest divided by it are dropped (kohya's sv_ratio). kohya's script keeps one
    more than its threshold asks for.
    """

    rank: int | None = None
    energy: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise LoraFileError(f"a rank of {self.rank} holds nothing; the smallest is 1")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise LoraFileError(f"the energy to keep is a share above 0 and up to 1, not {self.energy:g}")
        if self.ratio is not None and not self.ratio >= 1:
            raise LoraFileError(f"the ratio of singular values is 1 or more, not {self.ratio:g}")

    def of(self, values: Tensor) -> int:
        """The rank for singular values (n,) in falling order."""
        energies = values.double() ** 2
        total = float(energies.sum())
        if total == 0:
            return 1
        rank = int((values > values[0] * 1e-12).sum())
        if self.ratio is not None:
            rank = min(rank, int((values >= values[0] / self.ratio).sum()))
        if self.energy is not None:
            shares = energies.cumsum(0) / total
            rank = min(rank, int((shares < self.energy - 1e-12).sum()) + 1)
        return max(1, min(rank, self.rank or rank))


@dataclass(frozen=True)
class Kept:
    """What an approximation kept: the share of all squared singular values, and the smallest and largest rank."""

    energy: float
    ranks: tuple[int, int]


def resize(lora: LoraFile, keep: Keep) -> tuple[LoraFile, Kept]:
    """The best approximation of each module at a smaller rank (Eckart–Young), and what was kept.

    As in kohya's resize_lora a module keeps its scale: new alpha = alpha / rank · new rank. A fixed rank above a
    module's own leaves the module as it is. Metadata: ss_network_dim and ss_network_alpha, "Dynamic" where they differ.
    """
    modules, kept, total = {}, 0.0, 0.0
    for place, weights in lora.modules.items():
        modules[place], module_kept, module_total = _smaller(weights, keep)
        kept, total = kept + module_kept, total + module_total
    ranks = [weights.rank for weights in modules.values()]
    old = max(weights.rank for weights in lora.modules.values())
    words = f"dimension is resized from {old} to {min(ranks)}" + (f"-{max(ranks)}" if max(ranks) > min(ranks) else "")
    made = replace(lora, modules=modules, metadata=_described(lora.metadata, modules, words))
    return made, Kept(kept / total if total else 1.0, (min(ranks), max(ranks)))


def add(loras: Sequence[LoraFile], weights: Sequence[float], *, names: Sequence[str]) -> LoraFile:
    """The LoRA whose delta is Σ weight · delta, exactly: the ranks of a module's parts are put side by side.

    Where all scales times weights of a module are equal, the numbers are left as they are. Raises LoraFileError for
    LoRAs of different families or sizes. Metadata: what all of them say alike; ``names`` go into the comment.
    """
    families = {lora.family for lora in loras}
    if len(families) > 1:
        pairs = ", ".join(f"{name} is {lora.family}" for name, lora in zip(names, loras, strict=True))
        raise LoraFileError(f"LoRAs of different families cannot be merged: {pairs}")
    if len(loras) == 1 and weights[0] == 1:
        return loras[0]
    modules: dict[Place, LoraWeights] = {}
    for place in sorted({place for lora in loras for place in lora.modules}):
        parts = [
            (lora.modules[place], w) for lora, w in zip(loras, weights, strict=True) if place in lora.modules and w
        ]
        if parts:
            modules[place] = _side_by_side(place, parts)
    if not modules:
        raise LoraFileError("all weights are 0, so nothing is left; give --weight another number")
    shared = dict(set.intersection(*(set(lora.metadata.items()) for lora in loras)))
    recipe = " + ".join(f"{w:g} × {Path(name).name}" for name, w in zip(names, weights, strict=True))
    return replace(
        loras[0],
        modules=modules,
        metadata=_described(shared, modules, f"merged: {recipe}"),
        dtype=max((lora.dtype for lora in loras), key=lambda dtype: torch.finfo(dtype).bits),
    )


def norm(weights: LoraWeights) -> float:
    """Frobenius norm of what a module adds: ‖alpha/rank · up·down‖, by two r×r matrices."""
    down, up = weights.down.double().flatten(1), weights.up.double().flatten(1)
    squared = float(((up.T @ up) * (down @ down.T)).sum())
    return abs(weights.alpha) / weights.rank * math.sqrt(max(squared, 0.0))


def factored(u: Tensor, values: Tensor, v: Tensor, *, scale: float, like: Tensor) -> LoraWeights:
    """Factors of u·diag(values)·v, with the root of each value on both sides, so that neither underflows in half.

    u (out, r), values (r,), v (r, in·k·k); ``like`` (…, in[, k, k]) gives the shape of down. alpha = scale · r.
    """
    root, rank = values.sqrt(), len(values)
    down, up = (root[:, None] * v).float(), (u * root).float()
    if like.dim() == 4:
        return LoraWeights(down.view(rank, *like.shape[1:]), up[..., None, None], scale * rank)
    return LoraWeights(down, up, scale * rank)


def _smaller(weights: LoraWeights, keep: Keep) -> tuple[LoraWeights, float, float]:
    """The module at the rank that is kept; the squared norm of its delta, before and after."""
    scale = weights.alpha / weights.rank
    q_up, r_up = torch.linalg.qr(weights.up.double().flatten(1))  # (out, k), (k, r)
    q_down, r_down = torch.linalg.qr(weights.down.double().flatten(1).T)  # (in, k), (k, r)
    u, values, v = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    total = float((values**2).sum())
    rank = keep.of(values)
    if rank >= weights.rank:
        return weights, scale**2 * total, scale**2 * total
    made = factored(q_up @ u[:, :rank], values[:rank], v[:rank] @ q_down.T, scale=scale, like=weights.down)
    return made, scale**2 * float((values[:rank] ** 2).sum()), scale**2 * total


def _side_by_side(place: Place, parts: Sequence[tuple[LoraWeights, float]]) -> LoraWeights:
    dimensions = parts[0][0].down.dim()
    modules = [(shaped(weights, dimensions), weight) for weights, weight in parts]
    shapes = {(tuple(w.down.shape[1:]), tuple(w.up.shape[:1])) for w, _ in modules}
    if len(shapes) > 1:
        raise LoraFileError(f"these LoRAs have different sizes at {place.path}; they are for different bases")
    scales = [weights.alpha / weights.rank * weight for weights, weight in modules]
    rank = sum(weights.rank for weights, _ in modules)
    if len(set(scales)) == 1:
        down, up = [w.down for w, _ in modules], [w.up for w, _ in modules]
        return LoraWeights(torch.cat(down), torch.cat(up, dim=1), scales[0] * rank)
    roots = [abs(scale) ** 0.5 for scale in scales]
    down = [weights.down * root for (weights, _), root in zip(modules, roots, strict=True)]
    up = [w.up * (root if s >= 0 else -root) for (w, _), root, s in zip(modules, roots, scales, strict=True)]
    return LoraWeights(torch.cat(down), torch.cat(up, dim=1), float(rank))


def _described(metadata: Mapping[str, str], modules: Mapping[Place, LoraWeights], words: str) -> dict[str, str]:
    """The header with the new ranks and alphas, and a word on what was done before kohya's training comment."""
    ranks, alphas = Counter(w.rank for w in modules.values()), Counter(w.alpha for w in modules.values())
    comment = "; ".join(filter(None, (words, metadata.get("ss_training_comment", ""))))
    return {
        **metadata,
        "ss_network_dim": str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": f"{next(iter(alphas)):g}" if len(alphas) == 1 else "Dynamic",
        "ss_training_comment": comment,
    }
