"""How the base's networks compute while LoRAs are trained: by the nodes of `vez.nets.kernels`, which keep little.

Inside `lean` a U-Net's and text encoders' blocks are few nodes of autograd each, with their gradients by hand: frozen
weights get none, norms and gates are made again. Modules stay in their places, with their types and weights, so that
LoRAs are attached to them before or after. On a CPU pictures lie as (h, w, C) in memory, where a transformer reads them
without a copy.
"""

import ctypes
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vez.base.model import Base
from vez.nets.blocks import Resnet
from vez.nets.clip import QuickGELU, TextLayer
from vez.nets.coded import Coded, CodedConvolution, CodedLinear
from vez.nets.kernels.blocks import Activation, enter, feed_forward, frozen, gated_norm, leave, read, resnet
from vez.nets.kernels.convolution import LAST
from vez.nets.unet import Transformer, TransformerBlock, UNet

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's M_MMAP_THRESHOLD and M_TRIM_THRESHOLD
_LARGE = 256 * 1024  # bytes from which a tensor is a mapping of its own


@contextmanager
def lean(base: Base) -> Iterator[None]:
    """Inside, U-Net and text encoders keep less for the backward pass; after it their modules are as they were."""
    with ExitStack() as stack:
        for network in (base.unet, *base.text_encoders):
            for module in list(network.modules()):
                forward = _forward_of(module)
                if forward is not None:
                    replace_forward(stack, module, forward)
        if base.device.type == "cpu":
            _lay_last(base.unet)
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


@torch.no_grad()
def _lay_last(unet: UNet) -> None:
    """Have the weights of convolutions lie (out, h, w, in); they stay the same weights."""
    for module in unet.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.is_contiguous(memory_format=LAST):
            module.weight.data = module.weight.data.contiguous(memory_format=LAST)
        elif isinstance(module, CodedConvolution):
            module.codes = module.codes.contiguous(memory_format=LAST)


def _forward_of(module: nn.Module) -> Callable[..., Tensor] | None:
    """What a module is to do instead of its own forward pass; None: what it does."""
    known: dict[type[nn.Module], Callable[..., Tensor]] = {
        Resnet: _resnet,
        Transformer: _transformer,
        TransformerBlock: _transformer_block,
        TextLayer: _text_layer,
        nn.Conv2d: _convolution,
        CodedConvolution: _convolution,
        CodedLinear: _linear,
    }
    function = known.get(type(module))
    return None if function is None else partial(function, module)


def _convolution(conv: nn.Conv2d, x: Tensor) -> Tensor:
    return frozen(x, conv) if _is_frozen(conv) else nn.Conv2d.forward(conv, x)


def _linear(module: CodedLinear, x: Tensor) -> Tensor:
    return read(x, module)[0]  # PyTorch's own would keep the weight that was made


def _is_frozen(module: Any) -> bool:
    """Whether a convolution or linear layer is the base's own, of a shape that Stable Diffusion has."""
    if isinstance(module, Coded):
        return True
    if type(module) is nn.Linear:
        return not module.weight.requires_grad
    if type(module) is not nn.Conv2d or module.weight.requires_grad:
        return False
    square = all(one[0] == one[1] for one in (module.kernel_size, module.stride, module.padding))
    return square and module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"


def _resnet(block: Any, x: Tensor, time: Tensor | None = None) -> Tensor:
    told = None if time is None else block.time_emb_proj(time)
    whole = [block.conv1, block.conv2, *([block.conv_shortcut] if block.widens else [])]
    if all(_is_frozen(module) for module in whole):
        return resnet(x, told, block)
    y = block.conv1(gated_norm(x, block.norm1))  # a LoRA in one of them keeps what it reads
    if told is not None:
        y = y + told[:, :, None, None]
    y = block.conv2(gated_norm(y, block.norm2))
    out: Tensor = (block.conv_shortcut(x) if block.widens else x) + y
    return out


def _transformer(module: Any, x: Tensor, text: Tensor) -> Tensor:
    y = enter(x, module.proj_in, norm=module.norm)
    for block in module.transformer_blocks:
        y = block(y, text)
    return leave(y, module.proj_out, shortcut=x)


def _transformer_block(block: Any, x: Tensor, text: Tensor) -> Tensor:
    own, cross = block.attn1, block.attn2
    q, k, v = read(x, own.to_q, own.to_k, own.to_v, norm=block.norm1)
    (x,) = read(own.mix(q, k, v, heads=own.heads, exact=own.exact), own.to_out[0], shortcut=x)
    (q,) = read(x, cross.to_q, norm=block.norm2)
    k, v = read(text, cross.to_k, cross.to_v)
    (x,) = read(cross.mix(q, k, v, heads=cross.heads, exact=cross.exact), cross.to_out[0], shortcut=x)
    return feed_forward(x, block.ff.net[0].proj, block.ff.net[2], norm=block.norm3, how="gated")


def _text_layer(layer: Any, x: Tensor) -> Tensor:
    own, mlp = layer.self_attn, layer.mlp
    q, k, v = read(x, own.q_proj, own.k_proj, own.v_proj, norm=layer.layer_norm1)
    (x,) = read(own.mix(q, k, v, heads=own.heads, causal=True), own.out_proj, shortcut=x)
    how: Activation = "quick" if isinstance(mlp.activation_fn, QuickGELU) else "gelu"
    return feed_forward(x, mlp.fc1, mlp.fc2, norm=layer.layer_norm2, how=how)


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
