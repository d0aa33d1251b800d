"""AdamW over the flat buffers of several LoRAs at once, each with its own learning rates, decay and clipping.

Decoupled weight decay (Loshchilov and Hutter 2019), in the order of operations of torch.optim.AdamW, whose numbers it
gives. A row's two networks are two contiguous stretches, so a learning rate is a number, not a mask.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vez.interop import Network
from vez.lora import LoraSet

BETAS = (0.9, 0.999)
EPS = 1e-8
# Floats updated at a time on a CPU: a piece's parameters, gradients and moments then stay in the second-level cache.
_PIECE = 2**15


@dataclass(frozen=True)
class Rates:
    """One variant's settings for one step.

    ``clip`` is the largest gradient norm; 0 clips nothing. ``plus`` is the learning rate of up over that of down.
    """

    unet: float
    text: float
    weight_decay: float = 0.01
    clip: float = 1.0
    plus: float = 1.0
    betas: tuple[float, float] = BETAS
    eps: float = EPS

    def of(self, network: Network, up: bool = False) -> float:
        """The learning rate of a network's downs, or ups."""
        return (self.unet if network == "unet" else self.text) * (self.plus if up else 1.0)

    def clipping(self, norm: float) -> float:
        """What gradients of this norm are multiplied by: torch.nn.utils.clip_grad_norm_, which kohya calls."""
        return min(1.0, self.clip / (norm + 1e-6)) if self.clip > 0 else 1.0


class AdamW:
    """The moments of a `LoraSet`'s parameters, (V, P) each, and the step they have come to."""

    def __init__(self, lora: LoraSet) -> None:
        self.lora = lora
        self.first = torch.zeros_like(lora.params)
        self.second = torch.zeros_like(lora.params)
        self.steps = 0

    def norms(self) -> Tensor:
        """Each variant's gradient norm over all that it trains, (V,), before clipping."""
        squares = [
            sum((self._part(self.lora.grads, v, n).square().sum() for n in self._networks(v)), torch.zeros(()))
            for v in range(len(self.lora.specs))
        ]
        return torch.stack([square.cpu() for square in squares]).sqrt()

    @torch.no_grad()
    def step(self, rates: Sequence[Rates], norms: Tensor, *, stopped: Collection[int] = ()) -> None:
        """One update of every variant, with gradients of these ``norms`` clipped; then the gradients are zero again.

        Variants whose place is in ``stopped`` stay as they are.
        """
        self.steps += 1
        for v, (rate, norm) in enumerate(zip(rates, norms.tolist(), strict=True)):
            if v in stopped:
                continue
            for columns, lr in self._stretches(v, rate):
                self._update(v, columns, lr=lr, rate=rate, clip=rate.clipping(norm))
        self.lora.grads.zero_()

    def _stretches(self, variant: int, rate: Rates) -> Iterator[tuple[slice, float]]:
        """Columns that share a learning rate: whole networks, or every down and up where theirs differ (LoRA+)."""
        if rate.plus == 1:
            yield from ((self.lora.columns[n], rate.of(n)) for n in self._networks(variant))
            return
        for segment in self.lora.segments:
            if self.lora.trains(variant, segment.network):
                yield segment.down, rate.of(segment.network)
                yield segment.up, rate.of(segment.network, up=True)

    def _update(self, variant: int, columns: slice, *, lr: float, rate: Rates, clip: float) -> None:
        buffers = (self.lora.params.detach(), self.lora.grads, self.first, self.second)
        stretches = [buffer[variant, columns] for buffer in buffers]
        piece = _PIECE if stretches[0].device.type == "cpu" else max(1, len(stretches[0]))
        (beta1, beta2), weight_decay = rate.betas, rate.weight_decay
        correction = 1 - beta1**self.steps
        root = math.sqrt(1 - beta2**self.steps)
        for weight, grad, first, second in zip(*(torch.split(s, piece) for s in stretches), strict=True):
            if clip < 1:
                grad.mul_(clip)
            weight.mul_(1 - lr * weight_decay)
            first.lerp_(grad, 1 - beta1)
            second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            weight.addcdiv_(first, (second.sqrt() / root).add_(rate.eps), value=-lr / correction)

    def _networks(self, variant: int) -> list[Network]:
        networks: list[Network] = ["text", "unet"]
        return [n for n in networks if self.lora.trains(variant, n)]

    def _part(self, buffer: Tensor, variant: int, network: Network) -> Tensor:
        return buffer[variant, self.lora.columns[network]]
