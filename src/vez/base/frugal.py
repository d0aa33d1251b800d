"""What is kept beside a base on a CPU: little beside a large one, and freed memory for the next step of a small one."""

import ctypes
import os
import sys

from torch import nn

LARGE = 2**28  # weights of a U-Net from which it is worth while: a small one's steps would be slower


def large(unet: nn.Module) -> bool:
    """Whether this U-Net is."""
    return sum(p.numel() for p in unet.parameters()) >= LARGE


def few_primitives() -> None:
    """Have it keep one primitive of a kind, since each keeps its scratch memory with it.

    With Stable Diffusion 1.5's shape at 256² that was 50 MB, and no step slower. It asks the environment once, so this
    comes before the first convolution. What a person has set stays.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")


_TRIM, _MAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's <malloc.h>
_NEVER = 2**31 - 1  # bytes: all that an int holds
_LARGEST = (2**30, 2**25)  # bytes of a block from which it is mapped by itself; older glibc take no more than 32 MiB


def keep_freed() -> None:
    """Have glibc keep what is freed for what is asked for next, and not give it back to the system to ask for again.

    Each page asked for is filled with zeros first, at every step (bench/results). Beside a large base the gaps between
    kept blocks cost up to 0.3 GB, and no step is faster. Nothing happens where there is no glibc, and what a person
    has set stays.
    """
    if not sys.platform.startswith("linux") or _set_by_hand():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and any(mallopt(_MAP, ctypes.c_int(size)) for size in _LARGEST):
        mallopt(_TRIM, ctypes.c_int(_NEVER))


def _set_by_hand() -> bool:
    return "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "") or any(
        name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    )
