"""Convolutions of frozen weights, without a gradient for them.

Pictures and weights are (…, C, h, w) that lie in memory as (…, h, w, C). oneDNN rearranges a weight at every call: of
few cells, as in the coarse levels of a U-Net, that takes longer than the convolution. There it is one matrix product of
the weight as it lies and the cells' neighbourhoods.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vez.nets.kernels.products import linear

LAST = torch.channels_last
_FEW_CELLS = 128  # of a batch, up to which the product was faster in bfloat16; at 256 they were alike


def _as_product(x: Tensor, weight: Tensor, cells: int) -> bool:
    """Whether a convolution is better a product: of a kernel larger than 1 and few cells that come out."""
    if x.device.type != "cpu" or x.dtype == torch.float32 or cells > _FEW_CELLS or weight.shape[2] == 1:
        return False
    return weight.is_contiguous(memory_format=LAST)


def _sides(x: torch.Size, weight: Tensor, stride: int, padding: int) -> tuple[int, int]:
    """Height and width of what comes out."""
    kernel = weight.shape[2]
    return (x[2] + 2 * padding - kernel) // stride + 1, (x[3] + 2 * padding - kernel) // stride + 1


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """x (N, in, h, w), weight (out, in, k, k) -> (N, out, h', w')."""
    height, width = _sides(x.shape, weight, stride, padding)
    cells = len(x) * height * width
    if weight.shape[2] == 1 and stride == 1 and padding == 0 and x.is_contiguous(memory_format=LAST):
        y = linear(x.permute(0, 2, 3, 1).reshape(cells, -1), weight.flatten(1), bias)
    elif _as_product(x, weight, cells):
        kernels = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)  # (out, k·k·in), as it lies
        y = linear(_neighbourhoods(x, weight.shape[2], stride, padding, height, width), kernels, bias)
    else:
        return F.conv2d(x, weight, bias, stride, padding)
    return y.view(len(x), height, width, -1).permute(0, 3, 1, 2)


def convolve_back(dy: Tensor, shape: torch.Size, weight: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """The gradient of x, whose shape is given."""
    cells = dy.shape[0] * dy.shape[2] * dy.shape[3]
    if weight.shape[2] == 1 and stride == 1 and padding == 0 and dy.is_contiguous(memory_format=LAST):
        dx = linear(dy.permute(0, 2, 3, 1).reshape(cells, -1), weight.flatten(1).mT)
        return dx.view(shape[0], *shape[2:], -1).permute(0, 3, 1, 2)
    if _as_product(dy, weight, cells):
        kernels = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
        each = torch.mm(dy.permute(0, 2, 3, 1).reshape(cells, -1), kernels)  # (cells, k·k·in)
        return _summed(each.view(dy.shape[0], *dy.shape[2:], *weight.shape[2:], -1), shape, stride, padding)
    lies = LAST if weight.is_contiguous(memory_format=LAST) else torch.contiguous_format
    x = torch.empty(shape, dtype=dy.dtype, device=dy.device, memory_format=lies)  # asked for its shape only
    geometry: Any = ([stride, stride], [padding, padding], [1, 1], False, [0, 0], 1, [True, False, False])
    found: Tensor = torch.ops.aten.convolution_backward(dy, x, weight, None, *geometry)[0]
    return found


def _neighbourhoods(x: Tensor, kernel: int, stride: int, padding: int, height: int, width: int) -> Tensor:
    """What each cell that comes out is made of, (N·h'·w', k·k·in)."""
    count, channels, *sides = x.shape
    wide = x.new_zeros(count, sides[0] + 2 * padding, sides[1] + 2 * padding, channels)
    wide[:, padding : padding + sides[0], padding : padding + sides[1]] = x.permute(0, 2, 3, 1)
    each, down, right, _ = wide.stride()
    views = wide.as_strided(
        (count, height, width, kernel, kernel, channels), (each, stride * down, stride * right, down, right, 1)
    )
    return views.reshape(count * height * width, -1)


def _summed(each: Tensor, shape: torch.Size, stride: int, padding: int) -> Tensor:
    """The sum, for each cell that went in, of what its neighbours' gradients give it; (N, h', w', k, k, in)."""
    count, height, width, kernel, _, channels = each.shape
    tall, wide = shape[2] + 2 * padding, shape[3] + 2 * padding
    columns = each.new_zeros(count, tall, width, kernel, channels)
    for i in range(kernel):
        columns[:, i : i + stride * (height - 1) + 1 : stride].add_(each[:, :, :, i])
    found = each.new_zeros(count, tall, wide, channels)
    for j in range(kernel):
        found[:, :, j : j + stride * (width - 1) + 1 : stride].add_(columns[:, :, :, j])
    inside = found[:, padding : padding + shape[2], padding : padding + shape[3]]
    return inside.contiguous().permute(0, 3, 1, 2)
