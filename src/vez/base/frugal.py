"""What oneDNN's front end keeps beside a large base: little."""

import os

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
