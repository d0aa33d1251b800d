"""How a base computes while LoRAs are trained on it: its numbers' format, attention, and what it keeps."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from vez.base.checkpointing import checkpointed
from vez.base.frugal import few_primitives, keep_freed, large
from vez.base.lean import lean
from vez.base.model import Base, computing_in, plain_attention
from vez.config import Checkpointing
from vez.nets.kernels.regions import compiled

PLAIN_ATTENTION_PIXELS = 256  # side of the pictures up to which its matrices are small (1,024 tokens)
HALF = 2  # bytes of a number whose fused attention is slow on a CPU; in fp32 the fused one is the faster


@contextmanager
def computing(
    base: Base, dtype: torch.dtype, *, pixels: int, checkpointing: Checkpointing = "none", compile: bool = False
) -> Iterator[None]:
    """Inside, the base computes in ``dtype``, as is best for pictures of this side, and keeps no more than it needs.

    With ``compile``, its norms and gates are compiled (`vez.nets.kernels.regions`); raises ConfigError where there is
    no compiler.
    """
    plain = base.device.type == "cpu" and dtype.itemsize == HALF and pixels <= PLAIN_ATTENTION_PIXELS
    with ExitStack() as stack:
        stack.enter_context(computing_in(base, dtype))
        if plain:
            stack.enter_context(plain_attention(base))
        stack.enter_context(lean(base))
        if base.device.type == "cpu":
            if large(base.unet):
                few_primitives()
            else:
                keep_freed()
        stack.enter_context(checkpointed(base, checkpointing))
        if compile:
            stack.enter_context(compiled(base.device))
        yield
