"""Frozen linear layers with low-rank updates of V variants beside them (Hu et al. 2021), forward and backward by hand.

Layers that read the same input share what they do with it: one product for all of their downs, one for these downs'
gradients, one gradient of the input. Gradients of down and up are added where they are kept, in fp32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from vez.nets.coded import Coded
from vez.nets.kernels.products import by_onednn, each_added_, each_linear, each_matmul, linear, matmul

_LARGE = 2**25  # operations of an up's gradient from which it is asked of oneDNN, the thinner factor first


class Update(Protocol):
    """One layer's low-rank update: ``down`` (V, R, in) and ``up`` (V, out, R) fp32, and where their gradients are."""

    down: Tensor
    up: Tensor
    down_grad: Tensor
    up_grad: Tensor
    scale: Tensor | None
    drop: Callable[[int], Tensor | None] | None

    def cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """down, and up with the scale in it, as they are multiplied."""

    def joined(self, others: Sequence[Any], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """This down and those that lie right behind it as one (V, ΣR, in), and their gradients; None if others do."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear layer: a frozen weight, or what makes it at each reading, and its update, if it has one."""

    frozen: Tensor | Coded
    bias: Tensor | None
    update: Update | None

    @property
    def weight(self) -> Tensor:
        """(out, in), to be used at once."""
        return self.frozen if isinstance(self.frozen, Tensor) else self.frozen.borrowed.flatten(1)


class Layers:
    """Layers of one input. ``order`` has those with an update as their downs lie in memory."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        found = [(layer.update.down.storage_offset(), i) for i, layer in enumerate(layers) if layer.update is not None]
        self.order = [i for _, i in sorted(found)]

    @property
    def variants(self) -> int:
        """V; 1 where nothing is adapted."""
        return len(self._update(self.order[0]).down) if self.order else 1

    @property
    def anchor(self) -> Tensor | None:
        """Something that wants a gradient, for autograd to see that the layers do."""
        return self._update(self.order[0]).down if self.order else None

    def _update(self, i: int) -> Update:
        update = self.layers[i].update
        assert update is not None
        return update

    def _joined(self, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """All downs as one and their gradients as one, where they lie so."""
        if len(self.order) < 2:
            return None
        return self._update(self.order[0]).joined([self._update(i) for i in self.order[1:]], dtype)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor | None]]:
        """x (V, M, in) -> each layer's (V, M, out), and what the backward pass wants back besides x.

        That is, of each layer with an update, what is between down and up, (V, M, R), and the mask that multiplied it.
        """
        rows = x.flatten(0, 1)
        outs = [linear(rows, layer.weight, layer.bias).view(*x.shape[:2], -1) for layer in self.layers]
        joined = self._joined(x.dtype)
        together = None if joined is None else each_linear(x, joined[0])
        kept: list[Tensor | None] = []
        start = 0
        for i in self.order:
            update = self._update(i)
            down, up = update.cast(x.dtype)
            if together is None:
                hidden = each_linear(x, down)
            else:
                hidden, start = together[..., start : start + down.shape[1]], start + down.shape[1]
            mask = None if update.drop is None else update.drop(x.shape[1])
            if mask is not None:
                mask = mask.to(x.dtype)
                hidden = hidden * mask
            each_added_(outs[i], hidden, up.mT)
            kept += [hidden, mask]
        return outs, kept

    def again(self, x: Tensor, kept: Sequence[Tensor | None]) -> Tensor:
        """What `forward` gave for a single layer, once more, bit for bit."""
        (layer,) = self.layers
        out = linear(x.flatten(0, 1), layer.weight, layer.bias).view(*x.shape[:2], -1)
        if layer.update is not None and kept[0] is not None:
            each_added_(out, kept[0], layer.update.cast(x.dtype)[1].mT)
        return out

    def backward(
        self, dys: Sequence[Tensor], x: Tensor, kept: Sequence[Tensor | None], *, wanted: bool
    ) -> Tensor | None:
        """The gradient of x, if ``wanted``; those of downs and ups are added where they are kept."""
        d_hiddens = []
        for n, i in enumerate(self.order):
            update, hidden, mask, dy = self._update(i), kept[2 * n], kept[2 * n + 1], dys[i]
            assert hidden is not None
            d_hidden = each_matmul(dy, update.cast(x.dtype)[1])  # (V, M, R); up carries the scale
            d_hiddens.append(d_hidden if mask is None else d_hidden.mul_(mask))
            _add_up(update, dy, hidden)
        joined = self._joined(x.dtype)
        if joined is not None:
            d_hiddens = [torch.cat(d_hiddens, dim=-1)]
            downs, grads = [joined[0]], [joined[1]]
        else:
            downs = [self._update(i).cast(x.dtype)[0] for i in self.order]
            grads = [self._update(i).down_grad for i in self.order]
        for d_hidden, grad in zip(d_hiddens, grads, strict=True):
            grad.add_(each_matmul(d_hidden.mT, x))  # (V, R, in)
        if not wanted:
            return None
        dx: Tensor | None = None
        for dy, layer in zip(dys, self.layers, strict=True):
            rows = dy.flatten(0, 1)
            dx = matmul(rows, layer.weight) if dx is None else _added(dx, rows, layer.weight)
        assert dx is not None
        dx = dx.view(x.shape)
        for d_hidden, down in zip(d_hiddens, downs, strict=True):
            each_added_(dx, d_hidden, down)
        return dx


def _added(y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """y (M, N) + a (M, K) b (K, N); y may be overwritten."""
    if by_onednn(y):
        found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(a, y, b.mT, None, "add")
        return found
    return y.addmm_(a, b)


def _add_up(update: Update, dy: Tensor, hidden: Tensor) -> None:
    """Add an up's gradient, dyᵀ hidden, (V, out, R)."""
    if len(dy) == 1 and by_onednn(dy) and 2 * dy.numel() * hidden.shape[-1] >= _LARGE:
        grad = matmul(hidden[0].mT, dy[0]).mT[None]
    else:
        grad = torch.bmm(dy.mT, hidden)
    if update.scale is not None:
        grad = grad.float() * update.scale
    update.up_grad.add_(grad)
