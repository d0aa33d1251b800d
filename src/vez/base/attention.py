"""Attention in plain products that keeps none of its matrices: they are made again, some heads at a time."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vez.nets.attention import split

_LARGEST = 4 * 2**20  # bytes of the matrices that are made at once


class _Products(torch.autograd.Function):
    """softmax(q kᵀ / √d) v; keeps q, k and v."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, exact: bool) -> Tensor:
        """q (N·H, T, D), k and v (N·H, S, D) -> (N·H, T, D)."""
        ctx.save_for_backward(q, k, v)
        ctx.exact = exact
        return torch.cat([_product(q[part], k[part], v[part], exact) for part in _parts(q, k)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of q, k and v, as autograd gives them for some heads after the others."""
        kept = ctx.saved_tensors
        found = []
        for part in _parts(*kept[:2]):
            with torch.enable_grad():
                some = [tensor[part].detach().requires_grad_() for tensor in kept]
                out = _product(some[0], some[1], some[2], ctx.exact)
            found.append(torch.autograd.grad(out, some, grads[0][part]))
        dq, dk, dv = (torch.cat(column) for column in zip(*found, strict=True))
        return dq, dk, dv, None


def _product(q: Tensor, k: Tensor, v: Tensor, exact: bool) -> Tensor:
    asked, given = (q.float(), k.float()) if exact else (q, k)
    nothing = asked.new_empty(len(q), q.shape[1], k.shape[1])
    scores = torch.baddbmm(nothing, asked, given.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(dim=-1).to(q.dtype), v)


def _parts(q: Tensor, k: Tensor) -> Iterator[slice]:
    """Heads whose matrices are small enough together."""
    at_once = max(1, _LARGEST // (q.shape[1] * k.shape[1] * q.element_size()))
    return (slice(i, i + at_once) for i in range(0, len(q), at_once))


def plain(q: Tensor, k: Tensor, v: Tensor, *, heads: int, causal: bool = False, exact: bool = False) -> Tensor:
    """A `vez.nets.attention.Mix` in plain products. Where it is causal, a caption's, its small matrices are kept."""
    q, k, v = (split(one, heads) for one in (q, k, v))  # (N, H, T, D)
    if causal:
        scores = torch.matmul(q, k.mT) * q.shape[-1] ** -0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        shares = scores.masked_fill(later, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(q.dtype)
        return torch.matmul(shares, v).transpose(1, 2).flatten(2)
    apply: Any = _Products.apply
    mixed: Tensor = apply(*(one.flatten(0, 1) for one in (q, k, v)), exact)  # (N·H, T, D)
    return mixed.view(q.shape).transpose(1, 2).flatten(2)
