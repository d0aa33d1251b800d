"""The blocks of U-Nets and text encoders as few nodes of autograd each: what goes in is kept, the rest made again.

Norms, gates and activations are cheap, and their results are never kept. Each function takes modules as they are, with
a LoRA in a linear layer's place or not; a ResNet block takes frozen modules alone.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from vez.nets.coded import Coded, weight_of
from vez.nets.kernels.adapted import Layer, Layers
from vez.nets.kernels.convolution import LAST, convolve, convolve_back
from vez.nets.kernels.norms import (
    activated,
    activated_back,
    gelu_gated,
    gelu_gated_back,
    group_norm,
    group_norm_back,
    layer_norm,
    layer_norm_back,
)
from vez.nets.kernels.regions import region

Activation = Literal["gated", "quick", "gelu"]


def layers_of(*modules: Any) -> Layers:
    """Layers of one input: linear ones, 1×1 convolutions, or what stands in for one with a LoRA."""
    found = []
    for module in modules:
        update = getattr(module, "pair", None)
        own = module if update is None else module.base
        found.append(Layer(own if isinstance(own, Coded) else own.weight.flatten(1), own.bias, update))
    return Layers(found)


def read(x: Tensor, *modules: Any, norm: Any = None, shortcut: Tensor | None = None) -> tuple[Tensor, ...]:
    """What linear layers make of x (N, T, C), through a LayerNorm first; ``shortcut`` is added to the first's."""
    layers = layers_of(*modules)
    apply: Any = _Read.apply
    outs: tuple[Tensor, ...] = apply(x, shortcut, layers.anchor, layers, norm)
    return outs


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shortcut: Tensor | None, anchor: Tensor | None, layers: Layers, norm: Any
    ) -> tuple[Tensor, ...]:
        rows = _rows(x if norm is None else layer_norm(x, norm), layers)
        outs, kept = layers.forward(rows)
        ctx.save_for_backward(x, *kept)
        ctx.layers, ctx.norm = layers, norm
        shaped = [out.view(*x.shape[:-1], -1) for out in outs]
        if shortcut is not None:
            shaped[0].add_(shortcut)
        return tuple(shaped)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *kept = ctx.saved_tensors
        layers, norm = ctx.layers, ctx.norm
        rows = _rows(x if norm is None else layer_norm(x, norm), layers)
        dx = layers.backward([_rows(dy, layers) for dy in grads], rows, kept, wanted=ctx.needs_input_grad[0])
        if dx is not None:
            dx = dx.view(x.shape)
            if norm is not None:
                dx = layer_norm_back(dx, x, norm)
        return dx, grads[0] if ctx.needs_input_grad[1] else None, None, None, None


_MANY = 1024
"""Tokens from which a processor makes again what is between the two layers: 26 MB of Stable Diffusion 1.5's at 256²."""


def feed_forward(x: Tensor, first: Any, second: Any, *, norm: Any, how: Activation) -> Tensor:
    """x (N, T, C) + second(activated(first(norm(x)))); ``gated``: one half times GELU of the other."""
    inner, outer = layers_of(first), layers_of(second)
    apply: Any = _FeedForward.apply
    out: Tensor = apply(x, inner.anchor if outer.anchor is None else outer.anchor, inner, outer, norm, how)
    return out


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor | None, inner: Layers, outer: Layers, norm: Any, how: Activation
    ) -> Tensor:
        (between,), kept = inner.forward(_rows(layer_norm(x, norm), inner))
        (out,), later = outer.forward(_rows(_active(between, how), outer))
        again = x.device.type == "cpu" and x.shape[1] >= _MANY
        ctx.save_for_backward(x, None if again else between, *kept, *later)
        ctx.layers, ctx.norm, ctx.how, ctx.split = (inner, outer), norm, how, len(kept)
        return out.view(x.shape).add_(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, between, *kept = ctx.saved_tensors
        (inner, outer), split = ctx.layers, ctx.split
        wanted = ctx.needs_input_grad[0] or inner.anchor is not None
        if between is None:
            between = inner.again(_rows(layer_norm(x, ctx.norm), inner), kept[:split])
        active = _rows(_active(between, ctx.how), outer)
        back = outer.backward([_rows(grads[0], outer)], active, kept[split:], wanted=wanted)
        if back is None:
            return (None,) * 6
        del active
        dy = _active_back(back.view(*between.shape[:2], -1), between, ctx.how)
        rows = _rows(layer_norm(x, ctx.norm), inner)
        dx = inner.backward([_rows(dy, inner)], rows, kept[:split], wanted=ctx.needs_input_grad[0])
        if dx is not None:
            dx = layer_norm_back(dx.view(x.shape), x, ctx.norm).add_(grads[0])
        return dx, None, None, None, None, None


def enter(picture: Tensor, module: Any, *, norm: Any) -> Tensor:
    """A picture's cells as tokens: GroupNorm and a linear layer, (N, C, h, w) -> (N, h·w, out)."""
    layers = layers_of(module)
    apply: Any = _Enter.apply
    tokens: Tensor = apply(picture, layers.anchor, layers, norm)
    return tokens


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, picture: Tensor, anchor: Tensor | None, layers: Layers, norm: Any) -> Tensor:
        rows = _rows(_tokens(group_norm(picture, norm, gate=False)), layers)
        (out,), kept = layers.forward(rows)
        ctx.save_for_backward(picture, *kept)
        ctx.layers, ctx.norm = layers, norm
        return out.view(len(picture), picture.shape[2] * picture.shape[3], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        picture, *kept = ctx.saved_tensors
        layers, norm = ctx.layers, ctx.norm
        rows = _rows(_tokens(group_norm(picture, norm, gate=False)), layers)
        dx = layers.backward([_rows(grads[0], layers)], rows, kept, wanted=ctx.needs_input_grad[0])
        if dx is not None:
            count, channels, *sides = picture.shape
            dx = dx.view(count, *sides, channels).permute(0, 3, 1, 2)
            dx = group_norm_back(dx, picture, norm, gate=False)
        return dx, None, None, None


def leave(tokens: Tensor, module: Any, *, shortcut: Tensor) -> Tensor:
    """Tokens as a picture's cells again, through a linear layer, beside a shortcut (N, C, h, w)."""
    (out,) = read(tokens, module, shortcut=_tokens(shortcut))
    return out.view(len(out), *shortcut.shape[2:], -1).permute(0, 3, 1, 2)


def gated_norm(x: Tensor, norm: Any) -> Tensor:
    """SiLU of a GroupNorm of a picture."""
    apply: Any = _GatedNorm.apply
    out: Tensor = apply(x, norm)
    return out


class _GatedNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Any) -> Tensor:
        ctx.save_for_backward(x)
        ctx.norm = norm
        return group_norm(x, norm, gate=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        return group_norm_back(grads[0], ctx.saved_tensors[0], ctx.norm, gate=True), None


def frozen(x: Tensor, conv: Any) -> Tensor:
    """A convolution of a frozen weight."""
    apply: Any = _Frozen.apply
    out: Tensor = apply(x, conv)
    return out


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: Any) -> Tensor:
        ctx.conv, ctx.shape = conv, x.shape
        return convolve(x, weight_of(conv), conv.bias, stride=conv.stride[0], padding=conv.padding[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        conv = ctx.conv
        return convolve_back(grads[0], ctx.shape, weight_of(conv), stride=conv.stride[0], padding=conv.padding[0]), None


def resnet(x: Tensor, time: Tensor | None, block: Any) -> Tensor:
    """A ResNet block of frozen modules: picture (N, in, h, w), and of the time (N, out) -> (N, out, h, w)."""
    apply: Any = _Resnet.apply
    out: Tensor = apply(x, time, block)
    return out


class _Resnet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, time: Tensor | None, block: Any) -> Tensor:
        between = convolve(group_norm(x, block.norm1, gate=True), weight_of(block.conv1), block.conv1.bias, padding=1)
        if time is not None:
            between.add_(time[:, :, None, None])
        out = convolve(group_norm(between, block.norm2, gate=True), weight_of(block.conv2), block.conv2.bias, padding=1)
        ctx.save_for_backward(x, between)
        ctx.block = block
        return out.add_(convolve(x, weight_of(block.conv_shortcut), block.conv_shortcut.bias) if block.widens else x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, between = ctx.saved_tensors
        block, dy = ctx.block, grads[0]
        if not dy.is_contiguous(memory_format=LAST) and x.is_contiguous(memory_format=LAST):
            dy = dy.contiguous(memory_format=LAST)
        back = convolve_back(dy, between.shape, weight_of(block.conv2), padding=1)
        back = group_norm_back(back, between, block.norm2, gate=True)
        d_time = back.sum(dim=(2, 3)) if ctx.needs_input_grad[1] else None
        back = convolve_back(back, x.shape, weight_of(block.conv1), padding=1)
        dx = group_norm_back(back, x, block.norm1, gate=True)
        dx.add_(convolve_back(dy, x.shape, weight_of(block.conv_shortcut)) if block.widens else dy)
        return dx, d_time, None


def _rows(x: Tensor, layers: Layers) -> Tensor:
    """(…, C) -> (V, M, C)."""
    return x.reshape(layers.variants, -1, x.shape[-1])


def _tokens(picture: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h·w, C)."""
    return picture.permute(0, 2, 3, 1).flatten(1, 2)


@region
def _active(x: Tensor, how: Activation) -> Tensor:
    if how == "gated":
        value, gate = x.chunk(2, dim=-1)
        return gelu_gated(value, gate.contiguous())  # as it lies, GELU took twice as long
    return activated(x, quick=how == "quick")


@region
def _active_back(dy: Tensor, x: Tensor, how: Activation) -> Tensor:
    if how == "gated":
        value, gate = x.chunk(2, dim=-1)
        return torch.cat(gelu_gated_back(dy, value, gate.contiguous()), dim=-1)
    return activated_back(dy, x, quick=how == "quick")
