"""Loss scaling for steps in float16 (Micikevicius et al. 2018): gradients that would vanish below 6e-8 are kept.

Each variant has a scale of its own: its loss is multiplied by it before the backward pass, its gradients are divided by
it afterwards, in fp32. Gradients that have overflowed are thrown away, and the scale is halved; after `GROW_AFTER`
updates without that it is doubled. First scale, factors and interval are those of torch.amp.GradScaler, which kohya
uses.
"""

import torch
from torch import Tensor

from vez.device import carried
from vez.errors import TrainError

FIRST = 2.0**16
SMALLEST = 1.0  # what overflows unscaled does not for the scale's sake
GROW_AFTER = 2000


class LossScale:
    """The scales of V variants, and how many updates each has had since its last change."""

    def __init__(self, variants: int) -> None:
        self.scales = [FIRST] * variants
        self.since = [0] * variants

    def apply(self, losses: Tensor) -> Tensor:
        """Losses (V,) as their backward pass is to begin."""
        return losses * carried(torch.tensor(self.scales), losses.device)

    @torch.no_grad()
    def undo(self, grads: Tensor) -> None:
        """Divide gradients (V, P) by the scales, in place; powers of two, so that no bit is lost."""
        grads.div_(carried(torch.tensor(self.scales), grads.device)[:, None])

    def overflowed(self, v: int) -> bool:
        """Halve the scale of a variant whose gradients are not finite; False where it cannot be."""
        if self.scales[v] <= SMALLEST:
            return False
        self.scales[v], self.since[v] = self.scales[v] / 2, 0
        return True

    def updated(self, v: int) -> None:
        """Count an update of a variant; after enough of them its scale grows."""
        self.since[v] += 1
        if self.since[v] == GROW_AFTER:
            self.scales[v], self.since[v] = self.scales[v] * 2, 0

    def text(self, v: int) -> str:
        """What a variant's state keeps of it."""
        return f"{self.scales[v]!r} {self.since[v]}"

    def load(self, v: int, text: str) -> None:
        """Go on as `text` says. Raises TrainError where it says nothing of the kind."""
        try:
            scale, since = text.split()
            self.scales[v], self.since[v] = float(scale), int(since)
        except ValueError as error:
            raise TrainError(f"the loss scale does not read back ({text!r})") from error
