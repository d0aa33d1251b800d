"""Attention in plain products (Vaswani et al. 2017), where its matrices are small; causal for captions.

On a CPU PyTorch's fused kernel took 1.3 to 4 times as long, forward and backward together, up to 1,024 tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_KEPT = 8 * 2**20  # bytes of shares that are kept for the backward pass; more are made again
_AT_ONCE = 4 * 2**20  # bytes of shares that are made at once then
_SHORT = 256  # keys below which softmax by way of fp32 was faster in bfloat16


class Scores(torch.autograd.Function):
    """softmax(q kᵀ / √d) v of every head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool, exact: bool) -> Tensor:
        """q (N, T, C), k and v (N, S, C) -> (N, T, C); ``exact``: scores in fp32."""
        parts = [_split(one, heads) for one in (q, k, v)]
        count, tokens, keys = len(parts[0]), q.shape[1], k.shape[1]
        ctx.heads, ctx.causal, ctx.exact = heads, causal, exact
        if count * tokens * keys * q.element_size() <= _KEPT:
            shares = _shares(parts[0], parts[1], causal=causal, exact=exact)
            ctx.save_for_backward(q, k, v, shares)
            return _joined(torch.bmm(shares, parts[2]), len(q))
        ctx.save_for_backward(q, k, v, None)
        out = torch.empty_like(parts[0], memory_format=torch.contiguous_format)
        for some in _pieces(parts[0], parts[1]):
            shares = _shares(parts[0][some], parts[1][some], causal=causal, exact=exact)
            torch.bmm(shares, parts[2][some], out=out[some])
        return _joined(out, len(q))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of q, k and v."""
        q, k, v, shares = ctx.saved_tensors
        parts = [_split(one, ctx.heads) for one in (q, k, v, grads[0])]
        found: tuple[Tensor, ...]
        if shares is not None:
            found = _gradients(parts[0], parts[1], parts[2], parts[3], shares)
        else:
            pieces = []
            for some in _pieces(parts[0], parts[1]):
                asked, given, value, dy = (one[some] for one in parts)
                shares = _shares(asked, given, causal=ctx.causal, exact=ctx.exact)
                pieces.append(_gradients(asked, given, value, dy, shares))
            found = tuple(torch.cat(column) for column in zip(*pieces, strict=True))
        return *(_joined(one, len(q)) for one in found), None, None, None


def plain(q: Tensor, k: Tensor, v: Tensor, *, heads: int, causal: bool = False, exact: bool = False) -> Tensor:
    """A `vez.nets.attention.Mix` in plain products."""
    apply: Any = Scores.apply
    mixed: Tensor = apply(q, k, v, heads, causal, exact)
    return mixed


def _split(x: Tensor, heads: int) -> Tensor:
    """(N, T, C) -> (N·H, T, C/H)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2).flatten(0, 1)


def _joined(x: Tensor, count: int) -> Tensor:
    """(N·H, T, C/H) -> (N, T, C)."""
    return x.view(count, -1, *x.shape[1:]).transpose(1, 2).flatten(2)


def _pieces(q: Tensor, k: Tensor) -> Iterator[slice]:
    """Heads whose matrices are small enough together."""
    at_once = max(1, _AT_ONCE // (q.shape[1] * k.shape[1] * q.element_size()))
    return (slice(i, i + at_once) for i in range(0, len(q), at_once))


def _shares(q: Tensor, k: Tensor, *, causal: bool, exact: bool) -> Tensor:
    """How much each token takes of each other one, (N·H, T, S)."""
    asked, given = (q.float(), k.float()) if exact else (q, k)
    nothing = asked.new_empty(len(q), q.shape[1], k.shape[1])
    scores = torch.baddbmm(nothing, asked, given.mT, beta=0, alpha=q.shape[-1] ** -0.5)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu_(1)
        scores.masked_fill_(later, float("-inf"))
    wide = exact or k.shape[1] < _SHORT
    return torch.softmax(scores, dim=-1, dtype=torch.float32 if wide else None).to(q.dtype)


def _gradients(q: Tensor, k: Tensor, v: Tensor, dy: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = q.shape[-1] ** -0.5
    dv = torch.bmm(shares.mT, dy)
    d_scores = torch._softmax_backward_data(torch.bmm(dy, v.mT), shares, -1, shares.dtype)
    return torch.bmm(d_scores, k).mul_(scale), torch.bmm(d_scores.mT, q).mul_(scale), dv
