"""AdamW over the flat buffers of several LoRAs at once, each with its own learning rates, decay and clipping.

Decoupled weight decay (Loshchilov and Hutter 2019) by the operator of torch.optim.AdamW(fused=True), which reads and
writes everything once. What shares a learning rate lies in few contiguous stretches of a row, so a rate is a number,
not a mask.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vez.interop import Network
from vez.lora import Kind, LoraSet

BETAS = (0.9, 0.999)
EPS = 1e-8


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

    def clipping(self, norm: Tensor) -> Tensor | None:
        """What gradients of this norm are multiplied by: torch.nn.utils.clip_grad_norm_, which kohya calls. None: 1."""
        return (self.clip / (norm + 1e-6)).clamp(max=1.0) if self.clip > 0 else None


class AdamW:
    """The moments of a `LoraSet`'s parameters, (V, P) each, the step they have come to, and updates missed."""

    def __init__(self, lora: LoraSet) -> None:
        self.lora = lora
        self.first = torch.zeros_like(lora.params)
        self.second = torch.zeros_like(lora.params)
        self.steps = 0
        self.missed = [0] * len(lora.specs)

    def norms(self) -> Tensor:
        """Each variant's gradient norm over all that it trains, (V,), before clipping; on the weights' device."""
        norms = [
            torch.stack([torch.linalg.vector_norm(self._part(self.lora.grads, v, n)) for n in self._networks(v)])
            for v in range(len(self.lora.specs))
        ]
        return torch.stack([torch.linalg.vector_norm(each) for each in norms])

    @torch.no_grad()
    def step(self, rates: Sequence[Rates], norms: Tensor, *, stopped: Collection[int] = ()) -> None:
        """One update of every variant, with gradients of these ``norms`` clipped; then the gradients are zero again.

        Variants whose place is in ``stopped`` stay as they are.
        """
        self.update(rates, norms, stopped=stopped)
        self.lora.clear_gradients()

    @torch.no_grad()
    def update(
        self, rates: Sequence[Rates], norms: Tensor, *, stopped: Collection[int] = (), held: Tensor | None = None
    ) -> None:
        """`step` without the clearing. ``held`` (V,) is 1 for a variant that is to stay as it is too, else 0: it lies
        where the weights do, and nothing is read back of it or of the norms."""
        self.steps += 1
        for v, rate in enumerate(rates):
            if v in stopped:
                continue
            clip, hold = rate.clipping(norms[v]), None if held is None else held[v]
            scale = None if clip is None else clip.reciprocal()
            for columns, lr in self._stretches(v, rate):
                self._update(v, columns, lr=lr, rate=rate, scale=scale, hold=hold)

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

    def _update(
        self, variant: int, columns: slice, *, lr: float, rate: Rates, scale: Tensor | None, hold: Tensor | None
    ) -> None:
        weight, grad, first, second = (
            buffer[variant, columns] for buffer in (self.lora.params.detach(), self.lora.grads, self.first, self.second)
        )
        steps = torch.full((), float(self.steps - self.missed[variant]), device=weight.device)
        torch._fused_adamw_(
            [weight], [grad], [first], [second], [], [steps],
            lr=lr, beta1=rate.betas[0], beta2=rate.betas[1], weight_decay=rate.weight_decay, eps=rate.eps,
            amsgrad=False, maximize=False,
            grad_scale=scale, found_inf=hold,
        )  # fmt: skip
        torch.autograd.graph.increment_version(weight)  # the operator does not; the LoRAs' copies in bfloat16 ask it

    def _networks(self, variant: int) -> list[Network]:
        networks: list[Network] = ["text", "unet"]
        return [n for n in networks if self.lora.trains(variant, n)]

    def _part(self, buffer: Tensor, variant: int, network: Network) -> Tensor:
        return buffer[variant, self.lora.columns[network]]
