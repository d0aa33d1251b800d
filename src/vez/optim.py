"""AdamW over the flat buffers of several LoRAs at once, each with its own learning rates, decay and clipping.

Decoupled weight decay (Loshchilov and Hutter 2019), in the order of operations of torch.optim.AdamW, whose numbers it
gives. What shares a learning rate lies in few contiguous stretches of a row, so a rate is a number, not a mask.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vez.interop import Network
from vez.lora import Kind, LoraSet

BETAS = (0.9, 0.999)
EPS = 1e-8
# Floats updated at a time on a CPU: a piece's parameters, gradients and moments then stay in the second-level cache.
_PIECE = 2**15


@dataclass(frozen=True)
class Rates:
    """One variant's settings for one step.

    ``clip`` is the largest gradient norm; 0 clips nothing. ``plus`` is the learning rate of up over that of down.
    ``text2`` is the second text encoder's, None as the first's.
    """

    unet: float
    text: float
    weight_decay: float = 0.01
    clip: float = 1.0
    plus: float = 1.0
    betas: tuple[float, float] = BETAS
    eps: float = EPS
    text2: float | None = None

    def of(self, kind: Kind) -> float:
        """The learning rate of what is of this kind."""
        text = self.text if kind.encoder == 0 or self.text2 is None else self.text2
        return (self.unet if kind.network == "unet" else text) * kind.lr * (self.plus if kind.up else 1.0)

    def clipping(self, norm: float) -> float:
        """What gradients of this norm are multiplied by: torch.nn.utils.clip_grad_norm_, which kohya calls."""
        return min(1.0, self.clip / (norm + 1e-6)) if self.clip > 0 else 1.0


class AdamW:
    """The moments of a `LoraSet`'s parameters, (V, P) each, the step they have come to, and updates missed."""

    def __init__(self, lora: LoraSet) -> None:
        self.lora = lora
        self.first = torch.zeros_like(lora.params)
        self.second = torch.zeros_like(lora.params)
        self.steps = 0
        self.missed = [0] * len(lora.specs)

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
        """Columns that share a learning rate, as far as they reach."""
        columns, lr = slice(0, 0), 0.0
        for stretch in self.lora.stretches[variant]:
            if columns.stop == stretch.columns.start and lr == rate.of(stretch.kind):
                columns = slice(columns.start, stretch.columns.stop)
                continue
            if columns.stop > columns.start:
                yield columns, lr
            columns, lr = stretch.columns, rate.of(stretch.kind)
        yield columns, lr

    def _update(self, variant: int, columns: slice, *, lr: float, rate: Rates, clip: float) -> None:
        buffers = (self.lora.params.detach(), self.lora.grads, self.first, self.second)
        stretches = [buffer[variant, columns] for buffer in buffers]
        piece = _PIECE if stretches[0].device.type == "cpu" else max(1, len(stretches[0]))
        (beta1, beta2), weight_decay = rate.betas, rate.weight_decay
        made = self.steps - self.missed[variant]
        correction = 1 - beta1**made
        root = math.sqrt(1 - beta2**made)
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
