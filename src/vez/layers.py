"""LoRA layers: what stands in for a module of the base while V LoRAs lie beside its weight.

Activations are (V·B, …), variant after variant. The base multiplies once over all of them; each variant's down and up
multiply their own part (`vez.nets.kernels.adapted`). Gradients of down and up are added straight into their views of
the flat buffer: autograd gets none of them, and a pass that is computed twice adds them once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vez.nets.coded import weight_of
from vez.nets.kernels.blocks import read


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
        count, kept = len(down), [x]
        y = F.conv2d(x, weight_of(conv), conv.bias, *geometry)  # (V·B, out, h', w')
        adapting = [(v, rank) for v, rank in enumerate(pair.ranks or [down.shape[1]] * count) if rank]
        for v, rank in adapting:
            d, u = pair.kernels(v, rank, conv.kernel_size, x.dtype)
            hidden = F.conv2d(x.chunk(count)[v], d, None, *geometry)  # (B, r, h', w')
            if mask is not None:
                hidden = hidden * _as_image(mask[v, :, :rank], hidden)
            y.chunk(count)[v].add_(F.conv2d(hidden, u))
            kept.append(hidden)
        ctx.save_for_backward(mask, *kept)
        ctx.pair, ctx.geometry, ctx.count, ctx.adapting, ctx.conv = pair, geometry, count, adapting, conv
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x; down's and up's are added to the pair's, in fp32 as the parameters are."""
        mask, x, *kept = ctx.saved_tensors
        pair: Pair = ctx.pair
        dy, needs_dx = grads[0], ctx.needs_input_grad[0]
        dx = _gradients(dy, x, weight_of(ctx.conv), ctx.geometry, (True, False))[0] if needs_dx else None
        for i, (v, rank) in enumerate(ctx.adapting):
            d, u = pair.kernels(v, rank, ctx.conv.kernel_size, x.dtype)
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
    shadow: "Shadow | None" = None

    def cast(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """down, and up with the scale in it, as they are multiplied."""
        down, up = self._as(self.down, dtype), self._as(self.up, dtype)
        return down, up if self.scale is None else up * self.scale.to(dtype)

    def _as(self, weights: Tensor, dtype: torch.dtype) -> Tensor:
        """Weights, which are a view of the flat buffer, in another format."""
        if self.shadow is None or dtype == weights.dtype:
            return weights.detach().to(dtype)
        return self.shadow.of(dtype).as_strided(weights.shape, weights.stride(), weights.storage_offset())

    def joined(self, others: Sequence["Pair"], dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """This down and those that lie right behind it as one (V, ΣR, in), and their gradients; None if others do."""
        variants, rank, inputs = self.down.shape
        end = self.down.storage_offset() + rank * inputs
        for other in others:
            if other.down.storage_offset() != end or other.down.stride() != self.down.stride():
                return None
            rank, end = rank + other.down.shape[1], end + other.down[0].numel()
        same = {pair.down.untyped_storage().data_ptr() for pair in (self, *others)}
        if len(same) > 1:
            return None
        whole, offset = (variants, rank, inputs), self.down.storage_offset()
        flat = self.down.detach() if self.shadow is None or dtype == self.down.dtype else self.shadow.of(dtype)
        grads = self.down_grad.as_strided(whole, self.down_grad.stride(), self.down_grad.storage_offset())
        return flat.as_strided(whole, self.down.stride(), offset).to(dtype), grads

    def kernels(self, v: int, rank: int, size: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """One variant's down and up as convolutions' weights, (r, in, k, k) and (out, r, 1, 1)."""
        down, up = self.down.detach()[v, :rank].to(dtype), self.up.detach()[v, :, :rank].to(dtype)[..., None, None]
        up = up if self.scale is None else up * self.scale[v].to(dtype)[..., None, None]
        return down.reshape(rank, -1, *size), up


class Shadow:
    """The flat buffer in the format that is multiplied in: cast once for all modules, whenever it has changed."""

    def __init__(self, params: Tensor) -> None:
        self.params = params
        self.buffer: Tensor | None = None
        self.seen = -1

    def of(self, dtype: torch.dtype) -> Tensor:
        """The buffer, as it lies, in another format."""
        if self.buffer is None or self.buffer.dtype != dtype:
            self.buffer, self.seen = torch.empty_like(self.params, dtype=dtype), -1
        if self.seen != self.params._version:  # counts writes through any view
            self.buffer.copy_(self.params.detach())
            self.seen = self.params._version
        return self.buffer


class LoraLayer(nn.Module):
    """Stands in for one Linear or 1×1 convolution of the base while LoRAs are attached to it."""

    def __init__(self, base: nn.Module, pair: Pair) -> None:
        super().__init__()
        self.base, self.pair = base, pair

    def forward(self, x: Tensor) -> Tensor:
        """(V·B, …, in) -> (V·B, …, out); of a convolution (V·B, in, h, w) -> (V·B, out, h, w)."""
        if x.dim() == 4:
            out = read(x.permute(0, 2, 3, 1).flatten(1, 2), self)[0]  # (V·B, h·w, out)
            image = out.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
            return image if x.is_contiguous(memory_format=torch.channels_last) else image.contiguous()
        return read(x, self)[0]


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
