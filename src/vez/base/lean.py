"""A step that keeps less for its backward pass: what frozen modules need is less than what autograd keeps for them.

autograd keeps a convolution's input for the gradient of its weight, which nobody asks for here, and the results of
norms and activations although they are cheap to make again. Inside `lean` the base's own modules compute as before, but

- a convolution keeps its weight and the shape of its input;
- gates and activations keep what goes into them;
- what a norm or a gate gives is kept, by whoever reads it, as a recipe: the norm's input, which is kept anyway.

Values and gradients stay the same. Modules stay in their places, with their types and weights, so that LoRAs are
attached to them before or after.
"""

import ctypes
import platform
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vez.base.model import Base
from vez.nets.clip import GELU, QuickGELU
from vez.nets.unet import GEGLU

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD
_LARGE = 256 * 1024  # bytes from which a tensor is a mapping of its own


class _FrozenConv(torch.autograd.Function):
    """A convolution whose weight is frozen; keeps no input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: nn.Conv2d) -> Tensor:
        """x (N, in, h, w) -> (N, out, h', w')."""
        ctx.save_for_backward(weight)
        ctx.conv, ctx.shape = conv, x.shape
        return torch.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x, by the operator that autograd calls; it asks the input for its shape only."""
        (weight,) = ctx.saved_tensors
        conv: nn.Conv2d = ctx.conv
        dy = grads[0]
        shape_only = dy.new_empty(1).expand(ctx.shape)
        found = torch.ops.aten.convolution_backward(
            dy, shape_only, weight, None, conv.stride, conv.padding, conv.dilation, False, [0, 0], conv.groups,
            [True, False, False],
        )  # fmt: skip
        return found[0], None, None


class _Again(torch.autograd.Function):
    """A cheap function of one tensor; keeps the tensor, and computes the function again when its gradient is asked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """function(x)."""
        ctx.save_for_backward(x)
        ctx.function = function
        return function(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None]:
        """The gradient of x, as autograd gives it."""
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = ctx.function(x)
        return torch.autograd.grad(y, x, grads[0])[0], None


@dataclass(eq=False)
class _Recipe:
    """How to make a tensor again; what is made stays until all who asked for it have had it."""

    make: Callable[[], Tensor]
    readers: int = 0
    made: Tensor | None = None

    def taken(self) -> Tensor:
        """The tensor, for one of its readers."""
        made = self.made
        if made is None:
            with torch.no_grad():
                made = self.make()
        self.readers -= 1
        self.made = made if self.readers > 0 else None
        return made


@dataclass(frozen=True)
class _Kept:
    """A tensor that is kept as a recipe, and which view of it."""

    recipe: _Recipe
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


class _Pantry:
    """The tensors alive that can be made again, by their storage's address."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[weakref.ref[Tensor], int, _Recipe]] = {}

    def add(self, tensor: Tensor, make: Callable[[], Tensor]) -> None:
        """Know how to make a tensor again; forgotten when its Python object is, before its storage can be another's."""
        address = tensor.untyped_storage().data_ptr()

        def forget(ref: weakref.ref[Tensor]) -> None:
            if address in self.known and self.known[address][0] is ref:
                del self.known[address]

        self.known[address] = (weakref.ref(tensor, forget), tensor._version, _Recipe(make))

    def pack(self, tensor: Tensor) -> Tensor | _Kept:
        """What is kept of a tensor: itself, or a recipe."""
        found = self.known.get(tensor.untyped_storage().data_ptr())
        if found is None or found[0]() is None or tensor._version != found[1]:
            return tensor
        found[2].readers += 1
        return _Kept(found[2], tensor.shape, tensor.stride(), int(tensor.storage_offset()))

    def unpack(self, kept: Tensor | _Kept) -> Tensor:
        """The tensor again."""
        if isinstance(kept, _Kept):
            return kept.recipe.taken().as_strided(kept.shape, kept.stride, kept.offset)
        return kept


@contextmanager
def lean(base: Base) -> Iterator[None]:
    """Inside, U-Net and text encoders keep less for the backward pass; after it their modules are as they were."""
    with ExitStack() as stack:
        for network in (base.unet, *base.text_encoders):
            pantry = _Pantry()
            for module in list(network.modules()):
                forward = _forward_of(module, pantry)
                if forward is not None:
                    replace_forward(stack, module, forward)
            replace_forward(stack, network, _keeping(network.forward, pantry))
        yield


def replace_forward(stack: ExitStack, module: nn.Module, forward: Callable[..., Any]) -> None:
    """Have a module do something else until the stack is closed; the module itself stays in its place."""
    own = vars(module).get("forward")  # a library may have put one there
    module.forward = forward

    def restore() -> None:
        if own is None:
            del module.forward
        else:
            module.forward = own

    stack.callback(restore)


def _keeping(forward: Callable[..., Any], pantry: _Pantry) -> Callable[..., Any]:
    """A network's forward pass, what it keeps being kept by the pantry's recipes."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with saved_tensors_hooks(pantry.pack, pantry.unpack):
            return forward(*args, **kwargs)

    return run


def _forward_of(module: nn.Module, pantry: _Pantry) -> Callable[..., Tensor] | None:
    """What a module is to do instead of its own forward pass; None: what it does."""
    if isinstance(module, nn.Conv2d):
        return _convolution(module) if module.padding_mode == "zeros" and module.padding != "same" else None
    if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
        return _norm(module, pantry)
    if isinstance(module, GEGLU):
        return _gate(module, pantry)
    if isinstance(module, QuickGELU | GELU):
        return _activation(module, pantry)
    return None


def _convolution(conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        if not (x.requires_grad and torch.is_grad_enabled()) or conv.weight.requires_grad:
            return type(conv).forward(conv, x)
        y: Tensor = _applied(_FrozenConv, x, conv.weight, conv)
        return y

    return run


def _norm(norm: nn.Module, pantry: _Pantry) -> Callable[[Tensor], Tensor]:
    own: Callable[[Tensor], Tensor] = type(norm).forward.__get__(norm)

    def run(x: Tensor) -> Tensor:
        y = own(x)
        if y.requires_grad:
            kept = x.detach()
            pantry.add(y, lambda: own(kept))
        return y

    return run


def _activation(module: nn.Module, pantry: _Pantry) -> Callable[[Tensor], Tensor]:
    return lambda x: _again(type(module).forward.__get__(module), x, pantry)


def _gate(gate: GEGLU, pantry: _Pantry) -> Callable[[Tensor], Tensor]:
    return lambda x: _again(gate.gated, gate.proj(x), pantry)


def _again(function: Callable[[Tensor], Tensor], x: Tensor, pantry: _Pantry) -> Tensor:
    if not (x.requires_grad and torch.is_grad_enabled()):
        return function(x)
    y: Tensor = _applied(_Again, x, function)
    kept = x.detach()
    pantry.add(y, lambda: function(kept))
    return y


def _applied(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    apply: Any = function.apply
    return apply(*arguments)


def large_tensors_apart() -> bool:
    """Have the C library give each large tensor memory of its own, returned when it goes; whether it could be asked.

    Its own rule raises that limit to 32 MB, up to which freed tensors leave holes that other sizes do not fill. Pages
    that are new each time cost the system's time: 1.3 s beside the 2.9 of a step of SD 1.5's shape at 256 px on one
    core, for 140 MB of memory. So it is asked for only with checkpointing "whole".
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_TRIM_THRESHOLD, _LARGE))
