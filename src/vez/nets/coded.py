"""Frozen weights kept in eight bits: a whole number from -127 to 127 each, and a scale for each output.

Weight-only (Dettmers et al. 2022 call it absmax by rows): a weight is made again in the format that is computed in
right before its product, and again for the backward pass, and nothing else keeps it. The scale is a bfloat16 number,
so what is made again is the same weight in every format, but for that format's own rounding.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vez.nets.clip import TextLayer
from vez.nets.unet import Level, Middle

_MOST = 127
_INSIDE = (Level, Middle, TextLayer)
"""Where weights are coded; what comes first and last, the time's layers, norms and tokens' vectors stay as they are."""


class Scratch:
    """Memory that weights are made in one after the other: new pages for each cost more than the weight itself.

    A convolution's of 29 million numbers took 18 ms in new memory and 3.7 in the same, on two cores.
    """

    def __init__(self) -> None:
        self.buffer: Tensor | None = None

    def like(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """Room of the codes' shape, lying as they do; what was in it before is overwritten."""
        kept = self.buffer
        if kept is None or kept.numel() < codes.numel() or kept.dtype != dtype or kept.device != codes.device:
            self.buffer = None  # before there is another
            self.buffer = kept = torch.empty(codes.numel(), dtype=dtype, device=codes.device)
        return kept.as_strided(codes.shape, codes.stride())


class Coded(nn.Module):
    """What a linear layer and a convolution have in common here; ``weight`` is made at each reading."""

    codes: Tensor
    scale: Tensor

    def __init__(self, like: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.shape, self.bias = like.weight.shape, like.bias
        self.computes = like.weight.dtype
        self.scratch: Scratch | None = None
        self.register_buffer("codes", None, persistent=False)
        self.register_buffer("scale", None, persistent=False)

    @torch.no_grad()
    def take(self, weight: Tensor) -> None:
        """Keep a weight, on its device, and compute in its format unless told another."""
        self.computes = weight.dtype
        self.codes, self.scale = coded(weight)

    @property
    def borrowed(self) -> Tensor:
        """The same for a moment: until another layer's that has the same scratch memory is read."""
        if self.scratch is None:
            return self.weight
        return self.scratch.like(self.codes, self.computes).copy_(self.codes).mul_(self.scale.to(self.computes))

    @property
    def weight(self) -> Tensor:
        """What the codes stand for, in what is computed in; another tensor at each reading."""
        return decoded(self.codes, self.scale, self.computes)


class CodedLinear(Coded):
    """In a linear layer's place."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        return F.linear(x, self.weight, self.bias)


class CodedConvolution(Coded):
    """In a convolution's place."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__(like)
        self.kernel_size, self.stride, self.padding, self.dilation = (
            like.kernel_size,
            like.stride,
            like.padding,
            like.dilation,
        )
        self.groups = like.groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) -> (N, out, h', w')."""
        geometry: Any = (self.stride, self.padding, self.dilation, self.groups)
        return F.conv2d(x, self.weight, self.bias, *geometry)


def coded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (out, …) as int8 codes of its shape and bfloat16 scales (out, 1, …), codes · scales being near it.

    No number is off by more than half a scale, which is the row's largest number ÷ 127, rounded up.
    """
    exact = weight.detach().float()
    most = exact.flatten(1).abs().amax(dim=1)
    scale = (most / _MOST).to(torch.bfloat16)
    short = scale.float() * _MOST < most
    scale = torch.where(short, torch.nextafter(scale, torch.full_like(scale, torch.inf)), scale)
    scale = torch.where(most > 0, scale, torch.ones_like(scale)).view(-1, *[1] * (weight.dim() - 1))
    codes = (exact / scale.float()).round_().clamp_(-_MOST, _MOST).to(torch.int8)
    return codes, scale


def decoded(codes: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """What codes and scales stand for; it lies in memory as the codes do."""
    return codes.to(dtype).mul_(scale.to(dtype))


def code(network: nn.Module) -> None:
    """Have the linear layers and convolutions inside a network's blocks be coded ones, still without weights."""
    for block in [module for module in network.modules() if isinstance(module, _INSIDE)]:
        for name, module in list(block.named_modules()):
            parent, _, leaf = name.rpartition(".")
            if type(module) is nn.Linear:
                setattr(block.get_submodule(parent), leaf, CodedLinear(module))
            elif type(module) is nn.Conv2d:
                setattr(block.get_submodule(parent), leaf, CodedConvolution(module))


def coded_modules(*networks: nn.Module) -> Iterator[Coded]:
    """The coded ones of networks."""
    for network in networks:
        yield from (module for module in network.modules() if isinstance(module, Coded))


def weight_of(module: Any) -> Tensor:
    """A frozen layer's weight, to be used at once: a coded one's is gone when another's is asked for."""
    found: Tensor = module.borrowed if isinstance(module, Coded) else module.weight
    return found


def shape_of(module: Any) -> torch.Size:
    """A layer's weight's shape; asking a coded one for the weight would make it."""
    found: torch.Size = module.shape if isinstance(module, Coded) else module.weight.shape
    return found
