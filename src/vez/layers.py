"""LoRA layers: what stands in for a module of the base while V LoRAs lie beside its weight.

Activations are (V·B, …), variant after variant. The base multiplies once over all of them; each variant's down and up
multiply their own part. Every layer is one autograd node, which adds the gradients of down and up straight into their
views of the flat buffer: autograd gets none of them, and a pass that is computed twice adds them once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LoraProduct(torch.autograd.Function):
    """y = x Wᵀ + b + s · (x downᵀ) upᵀ for frozen W, as one node: no sum of two input gradients, one copy of x kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pair: "Pair",
        down: Tensor,
        up: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x (V, N, in), weight (out, in); ``down`` (V, R, in) and ``up`` (V, out, R) are the pair's.

        ``mask`` (V, N, R) multiplies what is between them (dropout); None is all ones.
        """
        down, up = pair.cast(x.dtype)
        hidden = torch.bmm(x, down.mT)  # (V, N, R)
        if mask is not None:
            mask = mask.to(x.dtype)
            hidden = hidden * mask
        y = F.linear(x, weight, bias)  # (V, N, out)
        y.baddbmm_(hidden, up.mT)
        ctx.save_for_backward(x, weight, hidden, mask)
        ctx.pair = pair
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x; down's and up's are added to the pair's, in fp32 as the parameters are."""
        x, weight, hidden, mask = ctx.saved_tensors
        pair: Pair = ctx.pair
        down, up = pair.cast(x.dtype)  # again: kept, they would all be there at once
        dy = grads[0]
        d_hidden = torch.bmm(dy, up)  # (V, N, R); up carries the scale
        if mask is not None:
            d_hidden = d_hidden * mask
        d_up = torch.bmm(dy.mT, hidden).to(pair.up_grad.dtype)  # (V, out, R)
        pair.up_grad.add_(d_up if pair.scale is None else d_up.mul_(pair.scale))
        pair.down_grad.add_(torch.bmm(d_hidden.mT, x).to(pair.down_grad.dtype))  # (V, R, in)
        dx = None
        if ctx.needs_input_grad[0]:  # False at the first LoRA layer: the gradient stops there
            dx = dy @ weight
            dx.baddbmm_(d_hidden, down)
        return dx, None, None, None, None, None, None


class LoraConvolution(torch.autograd.Function):
    """y = conv(x, W) + b + s · up conv(x, down) for frozen W, as one node; up is a 1×1 convolution, as kohya has it.

    Variant by variant, each at its own rank; one that does not adapt the module costs nothing.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, conv: nn.Conv2d, pair: "Pair", down: Tensor, up: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """x (V·B, in, h, w); ``down`` (V, R, in·k·k) and ``up`` (V, out, R) are the pair's.

        ``mask`` (V, B·h'·w', R) multiplies what is between them (dropout); None is all ones.
        """
        geometry: Any = (conv.stride, conv.padding, conv.dilation)
        count, kept = len(down), [x, conv.weight]
        y = F.conv2d(x, conv.weight, conv.bias, *geometry)  # (V·B, out, h', w')
        adapting = [(v, rank) for v, rank in enumerate(pair.ranks or [down.shape[1]] * count) if rank]
        for v, rank in adapting:
            d, u = pair.kernels(v, rank, conv.kernel_size, x.dtype)
            hidden = F.conv2d(x.chunk(count)[v], d, None, *geometry)  # (B, r, h', w')
            if mask is not None:
                hidden = hidden * _as_image(mask[v, :, :rank], hidden)
            y.chunk(count)[v].add_(F.conv2d(hidden, u))
            kept.append(hidden)
        ctx.save_for_backward(mask, *kept)
        ctx.pair, ctx.geometry, ctx.count, ctx.adapting, ctx.kernel = pair, geometry, count, adapting, conv.kernel_size
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x; down's and up's are added to the pair's, in fp32 as the parameters are."""
        mask, x, weight, *kept = ctx.saved_tensors
        pair: Pair = ctx.pair
        dy, needs_dx = grads[0], ctx.needs_input_grad[0]
        dx = _gradients(dy, x, weight, ctx.geometry, (True, False))[0] if needs_dx else None
        for i, (v, rank) in enumerate(ctx.adapting):
            d, u = pair.kernels(v, rank, ctx.kernel, x.dtype)
            hidden = kept[i]
            d_hidden, d_up = _gradients(dy.chunk(ctx.count)[v], hidden, u, _PLAIN, (True, True))
            d_up = d_up.flatten(1).to(pair.up_grad.dtype)
            pair.up_grad[v, :, :rank].add_(d_up if pair.scale is None else d_up * pair.scale[v])
            if mask is not None:
                d_hidden = d_hidden * _as_image(mask[v, :, :rank], d_hidden)
            d_x, d_down = _gradients(d_hidden, x.chunk(ctx.count)[v], d, ctx.geometry, (needs_dx, True))
            pair.down_grad[v, :rank].add_(d_down.flatten(1).to(pair.down_grad.dtype))
            if dx is not None:
                dx.chunk(ctx.count)[v].add_(d_x)
        return dx, None, None, None, None, None


_PLAIN = ((1, 1), (0, 0), (1, 1))  # a 1×1 convolution's stride, padding, dilation


def _as_image(mask: Tensor, like: Tensor) -> Tensor:
    """(B·h·w, r) → (B, r, h, w)."""
    return mask.to(like.dtype).view(len(like), *like.shape[2:], -1).permute(0, 3, 1, 2)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor, geometry: Any, wanted: tuple[bool, bool]) -> tuple[Any, Any]:
    """A convolution's gradients of input and weight, those that are wanted."""
    transposed, output_padding, groups = False, (0, 0), 1
    made = torch.ops.aten.convolution_backward(
        dy, x, weight, None, *geometry, transposed, output_padding, groups, (*wanted, False)
    )
    return made[0], made[1]


@dataclass
class Pair:
    """One module's weights of all variants, views of flat buffers; ``scale`` (V, 1, 1) is alpha/rank, None for 1.

    ``ranks``: each variant's own, the rest being padding; None, that there is none. ``drop`` gives, for N positions,
    the (V, N, R) mask of a dropout, or None for no mask.
    """

    down: Tensor
    up: Tensor
    down_grad: Tensor
    up_grad: Tensor
    scale: Tensor | None = None
    drop: Callable[[int], Tensor | None] | None = None
    ranks: Sequence[int] | None = None

    def cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """down, and up with the scale in it, as they are multiplied."""
        down, up = self.down.detach().to(dtype), self.up.detach().to(dtype)
        return down, up if self.scale is None else up * self.scale.to(dtype)

    def kernels(self, v: int, rank: int, size: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """One variant's down and up as convolutions' weights, (r, in, k, k) and (out, r, 1, 1)."""
        down, up = self.down.detach()[v, :rank].to(dtype), self.up.detach()[v, :, :rank].to(dtype)[..., None, None]
        up = up if self.scale is None else up * self.scale[v].to(dtype)[..., None, None]
        return down.reshape(rank, -1, *size), up


class LoraLayer(nn.Module):
    """Stands in for one Linear or 1×1 convolution of the base while LoRAs are attached to it."""

    def __init__(self, base: nn.Module, pair: Pair) -> None:
        super().__init__()
        self.base, self.pair = base, pair

    def forward(self, x: Tensor) -> Tensor:
        """(V·B, …, in) -> (V·B, …, out); of a convolution (V·B, in, h, w) -> (V·B, out, h, w)."""
        if x.dim() == 4:
            out = self._product(x.flatten(2).mT)  # (V·B, h·w, out)
            image = out.mT.view(len(x), -1, *x.shape[2:])
            return image.contiguous() if x.is_contiguous() else image
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        weight: Any = self.base.weight
        pair = self.pair
        rows = x.reshape(len(pair.down), -1, x.shape[-1])  # (V, B·tokens, in)
        apply: Any = LoraProduct.apply
        mask = None if pair.drop is None else pair.drop(rows.shape[1])
        y: Tensor = apply(rows, weight.flatten(1), self.base.bias, pair, pair.down, pair.up, mask)
        return y.view(*x.shape[:-1], y.shape[-1])


class LoraConvLayer(nn.Module):
    """Stands in for a convolution with a larger kernel."""

    def __init__(self, base: nn.Conv2d, pair: Pair) -> None:
        super().__init__()
        self.base, self.pair = base, pair

    def forward(self, x: Tensor) -> Tensor:
        """(V·B, in, h, w) -> (V·B, out, h', w')."""
        base, pair = self.base, self.pair
        mask = None
        if pair.drop is not None:
            padding: Any = base.padding
            shape = zip(x.shape[2:], padding, base.kernel_size, base.stride, strict=True)
            cells = math.prod((side + 2 * pad - kernel) // stride + 1 for side, pad, kernel, stride in shape)
            mask = pair.drop(len(x) // len(pair.down) * cells)
        apply: Any = LoraConvolution.apply
        y: Tensor = apply(x, base, pair, pair.down, pair.up, mask)
        return y
