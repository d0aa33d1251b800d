"""Whether a LoRA's numbers are sound: which tensor is not finite, how large the LoRA is, and what it does to its base.

Norms are Frobenius'. ΔW = scale · up · down is never formed: ‖up down‖² = tr(upᵀup · down downᵀ), two r×r matrices.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vez.interop import parent_of
from vez.lora import LoraSet

# ‖ΔW‖/‖W‖ below this in every module moves no picture: it is under the rounding of a half-precision W (2⁻¹¹) by 500.
NOTHING = 1e-6


@dataclass(frozen=True)
class Size:
    """``norm``: of all ΔW together. ``change``: the largest ‖ΔW‖/‖W‖ of a module, ``module``."""

    norm: float
    change: float
    module: str

    @property
    def does_nothing(self) -> bool:
        """Whether the LoRA leaves its base as it is, within `NOTHING`."""
        return self.change < NOTHING


def broken_tensor(lora: LoraSet, variant: int) -> str:
    """The first module of a variant with a weight, else with a gradient, that is not finite; else the largest gradient.

    The last is where finite gradients are so large that their norm is not.
    """
    largest = (-1.0, "")
    for what, buffer in (("weights", lora.params.detach()), ("gradients", lora.grads)):
        for key, pair in lora.rows(buffer, variant).items():
            for part, tensor in zip(("lora_down", "lora_up"), pair, strict=True):
                peak = float(tensor.abs().max())  # NaN where there is one
                if not math.isfinite(peak):
                    return f"first in the {what} of {key}.{part}"
                if what == "gradients":
                    largest = max(largest, (peak, f"{key}.{part}"))
    return f"largest in the gradients of {largest[1]}"


def finite(lora: LoraSet, variant: int) -> bool:
    """Whether all weights of a variant are numbers."""
    return bool(torch.isfinite(lora.params.detach()[variant]).all())


def base_norms(lora: LoraSet) -> dict[str, float]:
    """‖W‖ of every module of the base that some variant adapts."""
    found = {}
    for segment in lora.segments:
        parent, name = parent_of(lora.base, segment.target)
        module = parent.get_submodule(name)
        weight: Any = getattr(module, "base", module).weight
        found[segment.key] = float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float32))
    return found


@torch.no_grad()
def size(lora: LoraSet, variant: int, *, base: dict[str, float]) -> Size:
    """How large a variant's LoRA is beside the ``base``'s weights (`base_norms`)."""
    squares, largest = 0.0, (-1.0, "")
    state = lora.state(variant)
    for key, weights in state.items():
        norm = float(product_norm(weights.down.flatten(1), weights.up.flatten(1))) * weights.alpha / weights.rank
        squares += norm * norm
        largest = max(largest, (norm / max(base[key], 1e-30), key))
    return Size(squares**0.5, *largest)


def product_norm(down: Tensor, up: Tensor) -> Tensor:
    """‖up @ down‖ of down (r, in) and up (out, r), in fp64, as a tensor without dimensions."""
    down, up = down.double(), up.double()
    return ((up.mT @ up) * (down @ down.mT)).sum().clamp(min=0).sqrt()
