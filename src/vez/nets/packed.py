"""Frozen layers for drawing: weights in the order that the processor's kernels read them in, brought there once.

oneDNN, PyTorch's library of kernels for CPUs, computes in blocks and reorders weights that lie otherwise at each call;
PyTorch hands it no linear layer at all in fp32, but its operators do. Where there is no oneDNN the layers are PyTorch's
own, channels last. Pictures are (N, C, h, w) with channels last in memory, so that their cells as tokens are a view.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether weights can be brought into oneDNN's order there, and are computed with as they are."""
    onednn: Any = torch.backends.mkldnn
    if device.type != "cpu" or not onednn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


@dataclass(frozen=True)
class How:
    """What layers compute in, and for batches of how many their weights are packed; others are right, but slower."""

    dtype: torch.dtype
    batch: int


class Dense:
    """A linear layer, or several of the same input side by side; a 1×1 convolution is one too."""

    def __init__(self, layers: Sequence[nn.Module], how: How, *, part: slice = slice(None)) -> None:
        own: Any = layers
        weights = [layer.weight.detach()[part].flatten(1).to(how.dtype) for layer in own]
        biases = [layer.bias.detach()[part].to(how.dtype) for layer in own if layer.bias is not None]
        self.weight = (weights[0] if len(weights) == 1 else torch.cat(weights)).contiguous()
        self.bias = torch.cat(biases) if biases else None
        self.how, self.rows = how, 0
        self.packs = packs(self.weight.device, how.dtype)

    def _packed(self, x: Tensor) -> Tensor:
        rows = self.how.batch * x.shape[1:-1].numel()
        if rows != self.rows:
            plain = self.weight.to_dense() if self.rows else self.weight
            self.weight, self.rows = torch.ops.mkldnn._reorder_linear_weight(plain, rows), rows
        return self.weight

    def __call__(self, x: Tensor) -> Tensor:
        """(N, …, in) -> (N, …, out)."""
        if not self.packs:
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed(x), self.bias, "none", [], "")
        return out

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The layer of x, and (N, …, out) added."""
        if not self.packs:
            return F.linear(x, self.weight, self.bias).add_(other)
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._packed(x), self.bias, "add")
        return out


class Convolution:
    """A convolution of channels-last pictures."""

    def __init__(self, conv: nn.Conv2d, how: How, *, weight: Tensor | None = None) -> None:
        self.call: Any = (list(_sides(conv.padding)), list(conv.stride), list(conv.dilation), conv.groups)
        self.weight = (conv.weight if weight is None else weight).detach().to(how.dtype)
        self.bias = None if conv.bias is None else conv.bias.detach().to(how.dtype)
        self.how, self.seen = how, (0, 0)
        self.packs = packs(self.weight.device, how.dtype)
        if not self.packs:
            self.weight = self.weight.contiguous(memory_format=torch.channels_last)

    def _packed(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if (height, width) != self.seen:
            plain = self.weight.to_dense() if any(self.seen) else self.weight
            seen = [self.how.batch, *x.shape[1:]]
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(plain.contiguous(), *self.call, seen)
            self.seen = (height, width)
        return self.weight

    def __call__(self, x: Tensor, *, bias: Tensor | None = None) -> Tensor:
        """(N, in, h, w) -> (N, out, h', w'); ``bias`` (out,) instead of the layer's own."""
        bias = self.bias if bias is None else bias
        if not self.packs:
            padding, stride, dilation, groups = self.call
            return F.conv2d(x, self.weight, bias, stride, padding, dilation, groups)
        call = (*self.call, "none", [], "")
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self._packed(x), bias, *call)
        return out

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """The convolution of x, and (N, out, h', w') added."""
        if not self.packs:
            return self(x).add_(other)
        call = (*self.call, "add", 1.0, None, [], None)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(x, other, self._packed(x), self.bias, *call)
        return out


class Doubling:
    """Each cell four times and a 3×3 convolution, in 4/9 of its products.

    A cell of the result sees at most 2×2 cells of what was doubled, so each of its four places in a cell has a 2×2
    convolution of its own, whose weights are sums of the 3×3 one's (Shi et al. 2016, turned round).
    """

    def __init__(self, conv: nn.Conv2d, how: How) -> None:
        weight = conv.weight.detach().float()
        self.phases = {
            (row, column): Convolution(conv, how, weight=_summed(_summed(weight, 2, row), 3, column))
            for row, column in product((0, 1), repeat=2)
        }
        self.whole = Convolution(conv, how)

    def __call__(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(N, C, h, w) -> (N, C, 2h, 2w), or of the size."""
        count, channels, height, width = x.shape
        if size is not None and size != (2 * height, 2 * width):
            return self.whole(F.interpolate(x, size=size, mode="nearest"))
        out = torch.empty(
            (count, channels, 2 * height, 2 * width),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        for (row, column), phase in self.phases.items():
            y = phase(x)  # (N, C, h + 1, w + 1)
            out[:, :, row::2, column::2] = y[:, :, row : row + height, column : column + width]
        return out


def _summed(weight: Tensor, axis: int, phase: int) -> Tensor:
    """Three taps along an axis as the two that see different cells: in the first phase a‖b+c, in the second a+b‖c."""
    a, b, c = weight.chunk(3, dim=axis)
    return torch.cat([a, b + c] if phase == 0 else [a + b, c], dim=axis)


def _sides(padding: str | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(padding, str):
        raise TypeError(f"a convolution padded {padding!r} is none of Stable Diffusion's")
    return padding
