"""Norms and gates, forward and backward by hand; their weights are frozen and get no gradient."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vez.nets.kernels.regions import region

_aten = torch.ops.aten
_LAST = torch.channels_last
_MANY_CELLS = 256  # of a picture, from which PyTorch's norm of a picture that lies (h, w, C) took up to 9 times as long


@region
def group_norm(x: Tensor, norm: Any, *, gate: bool) -> Tensor:
    """GroupNorm (Wu and He 2018) of a picture (N, C, h, w), and SiLU of it where there is a ``gate``."""
    y = _normed(_laid(x), norm)[0]
    if gate:
        F.silu(y, inplace=True)
    return _as(y, x)


@region
def group_norm_back(dy: Tensor, x: Tensor, norm: Any, *, gate: bool) -> Tensor:
    """The gradient of x; the norm is computed again."""
    there = _laid(x)
    y, mean, rstd = _normed(there, norm)
    dy = dy.contiguous() if there.is_contiguous() else dy.contiguous(memory_format=_LAST)
    if gate:
        dy = _aten.silu_backward(dy, y)
    count, channels, height, width = x.shape
    dx: Tensor = _aten.native_group_norm_backward(
        dy, there, mean, rstd, norm.weight, count, channels, height * width, norm.num_groups, [True, False, False]
    )[0]
    return _as(dx, x)


def _normed(x: Tensor, norm: Any) -> tuple[Tensor, Tensor, Tensor]:
    count, channels, height, width = x.shape
    return torch.native_group_norm(
        x, norm.weight, norm.bias, count, channels, height * width, norm.num_groups, norm.eps
    )


def _laid(x: Tensor) -> Tensor:
    """The picture as the norm is fast on it."""
    many = x.shape[2] * x.shape[3] >= _MANY_CELLS and x.device.type == "cpu"
    return x.contiguous() if many or not x.is_contiguous(memory_format=_LAST) else x


def _as(y: Tensor, x: Tensor) -> Tensor:
    """y as x lies."""
    return y.contiguous(memory_format=_LAST) if x.is_contiguous(memory_format=_LAST) else y.contiguous()


@region
def layer_norm(x: Tensor, norm: Any) -> Tensor:
    """LayerNorm (Ba et al. 2016) of (…, C)."""
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


@region
def layer_norm_back(dy: Tensor, x: Tensor, norm: Any) -> Tensor:
    """The gradient of x; mean and deviation are computed again."""
    shape = norm.normalized_shape
    _, mean, rstd = torch.native_layer_norm(x, shape, norm.weight, norm.bias, norm.eps)
    dx: Tensor = _aten.native_layer_norm_backward(
        dy, x, shape, mean, rstd, norm.weight, norm.bias, [True, False, False]
    )[0]
    return dx


def gelu_gated(value: Tensor, gate: Tensor) -> Tensor:
    """value · GELU(gate) (Shazeer 2020)."""
    return F.gelu(gate).mul_(value)


def gelu_gated_back(dy: Tensor, value: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of value and gate."""
    return F.gelu(gate).mul_(dy), _aten.gelu_backward(dy * value, gate)


def activated(x: Tensor, *, quick: bool) -> Tensor:
    """GELU, or x · sigmoid(1.702 x) in its place (Hendrycks and Gimpel 2016)."""
    return torch.sigmoid(1.702 * x).mul_(x) if quick else F.gelu(x)


def activated_back(dy: Tensor, x: Tensor, *, quick: bool) -> Tensor:
    """The gradient of x."""
    if quick:
        return _aten.silu_backward(dy, 1.702 * x)  # type: ignore[no-any-return]
    return _aten.gelu_backward(dy, x)  # type: ignore[no-any-return]
