"""Attention in plain products that keeps none of its matrices: they are made again, some heads at a time."""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

_LARGEST = 4 * 2**20  # bytes of the matrices that are made at once


class _Products(torch.autograd.Function):
    """softmax(scale · q kᵀ) v by diffusers' own `get_attention_scores`; keeps q, k and v."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, attn: Any) -> Tensor:
        """q (N·H, T, D), k and v (N·H, S, D) -> (N·H, T, D)."""
        ctx.save_for_backward(q, k, v)
        ctx.attn = attn
        return torch.cat([_product(attn, q[part], k[part], v[part]) for part in _parts(q, k)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of q, k and v, as autograd gives them for some heads after the others."""
        kept = ctx.saved_tensors
        found = []
        for part in _parts(*kept[:2]):
            with torch.enable_grad():
                some = [tensor[part].detach().requires_grad_() for tensor in kept]
                out = _product(ctx.attn, *some)
            found.append(torch.autograd.grad(out, some, grads[0][part]))
        dq, dk, dv = (torch.cat(column) for column in zip(*found, strict=True))
        return dq, dk, dv, None


def _product(attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.bmm(attn.get_attention_scores(q, k, None), v)


def _parts(q: Tensor, k: Tensor) -> Iterator[slice]:
    """Heads whose matrices are small enough together."""
    at_once = max(1, _LARGEST // (q.shape[1] * k.shape[1] * q.element_size()))
    return (slice(i, i + at_once) for i in range(0, len(q), at_once))


class PlainAttention(AttnProcessor):  # type: ignore[misc]
    """diffusers' attention in plain products, for what the U-Nets of Stable Diffusion ask of it."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """(N, T, C) of one sequence, or asked of another (N, S, D) -> (N, T, C)."""
        if attention_mask is not None or attn.group_norm is not None or attn.norm_cross or attn.residual_connection:
            out: Tensor = super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
            return out
        other = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        asked = (attn.to_q(hidden_states), attn.to_k(other), attn.to_v(other))
        apply: Any = _Products.apply
        mixed = attn.batch_to_head_dim(apply(*(attn.head_to_batch_dim(one) for one in asked), attn))
        return attn.to_out[1](attn.to_out[0](mixed)) / attn.rescale_output_factor  # type: ignore[no-any-return]
