"""Matrix products by the faster of a CPU's libraries; none has a gradient.

In fp32 PyTorch asks MKL, which uses AVX2 on processors that are not Intel's; oneDNN uses AVX-512 on all of them and was
2.1 times as fast on such a one. In bfloat16 it is oneDNN anyway.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

_FEW_ROWS, _LARGE_WEIGHT = 64, 2**22
"""Below and above which the weight as the first factor was faster: as the second it is rearranged at each call."""
_THIN = 32  # rows of a transposed first factor below which oneDNN was slower


@cache
def _wide() -> bool:
    """Whether this processor has AVX-512 and this PyTorch oneDNN."""
    capable = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return capable and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def by_onednn(x: Tensor) -> bool:
    """Whether products of it are to be asked of oneDNN openly."""
    return x.dtype == torch.float32 and x.device.type == "cpu" and _wide()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (M, K), weight (N, K) -> x weightᵀ + bias, (M, N)."""
    if by_onednn(x):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    few = x.shape[0] <= _FEW_ROWS and weight.numel() >= _LARGE_WEIGHT
    if few and x.device.type == "cpu" and x.dtype == torch.bfloat16:
        y = torch.mm(weight, x.mT).mT.contiguous()
        return y if bias is None else y.add_(bias)
    return F.linear(x, weight, bias)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (M, K), b (K, N) -> (M, N)."""
    if by_onednn(a) and (a.stride(0) != 1 or a.shape[0] >= _THIN):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.mT, None, "none", [], "")
        return found
    return torch.mm(a, b)


def each_linear(x: Tensor, weights: Tensor) -> Tensor:
    """x (V, M, K), weights (V, N, K) -> (V, M, N)."""
    if len(x) == 1:
        return linear(x[0], weights[0])[None]
    if by_onednn(x):
        return torch.stack([linear(one, weight) for one, weight in zip(x, weights, strict=True)])
    return torch.bmm(x, weights.mT)


def each_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a (V, M, K), b (V, K, N) -> (V, M, N)."""
    if len(a) == 1:
        return matmul(a[0], b[0])[None]
    if by_onednn(a):
        return torch.stack([matmul(one, other) for one, other in zip(a, b, strict=True)])
    return torch.bmm(a, b)


def each_added_(y: Tensor, a: Tensor, b: Tensor) -> None:
    """y (V, M, N) += a (V, M, K) b (V, K, N)."""
    if len(y) == 1:
        y[0].addmm_(a[0], b[0])
    else:
        y.baddbmm_(a, b)
