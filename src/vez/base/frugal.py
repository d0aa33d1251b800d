"""A processor's memory beside a large base: what libraries hold on to goes back to the system.

With Stable Diffusion 1.5's shape at 256², batch 1, bfloat16, and together with `vez.pages`, 0.11 GB of 3.0.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import nn

LARGE = 2**28  # weights of a U-Net from which it is worth while: a small one's steps are short


def large(unet: nn.Module) -> bool:
    """Whether this U-Net is."""
    return sum(p.numel() for p in unet.parameters()) >= LARGE


def few_primitives() -> None:
    """Have oneDNN's front end keep one primitive of a kind, whose scratch memory it would keep with it.

    It asks the environment once, so this comes before the first convolution. What a person has set stays.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")


@contextmanager
def giving_back(unet: Any) -> Iterator[None]:
    """Inside, memory that was freed goes back to the system twice while a backward pass goes through the U-Net.

    There activations go and gradients come; the allocator would keep the pages of those, while these take new ones.
    """
    trim = _trim()
    if trim is None:
        yield
        return

    def passed(module: nn.Module, inputs: Any, out: Any) -> None:
        if out.requires_grad:
            out.register_hook(lambda _: trim())

    levels = unet.up_blocks
    handles = [m.register_forward_hook(passed) for m in (unet.mid_block, levels[min(1, len(levels) - 1)].resnets[1])]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@cache
def _trim() -> Callable[[], None] | None:
    """glibc's malloc_trim; None where the C library is another."""
    try:
        library = ctypes.CDLL(None)
        found = library.malloc_trim
    except (OSError, AttributeError, TypeError):  # musl, macOS; on Windows None is no name
        return None
    found.argtypes, found.restype = [ctypes.c_size_t], ctypes.c_int

    def trim() -> None:
        found(0)

    return trim
