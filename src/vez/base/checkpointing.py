"""Gradient checkpointing: blocks that keep their input alone and are computed again in the backward pass.

Per number that is not kept, a product of width c costs about 2c operations to do again, a 3×3 convolution 18c. So
"selective" does again the transformer blocks of the U-Net and the layers of the text encoders, which are products, and
leaves the ResNet blocks; "whole" does again everything but the first and the last layers (Chen et al. 2016).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from vez.base.lean import large_tensors_apart, replace_forward
from vez.base.model import Base
from vez.config import Checkpointing
from vez.nets.blocks import Resnet
from vez.nets.clip import TextLayer
from vez.nets.unet import Transformer, TransformerBlock

BLOCKS: dict[Checkpointing, tuple[type[nn.Module], ...]] = {
    "none": (),
    "selective": (TransformerBlock, TextLayer),
    "whole": (Resnet, Transformer, TextLayer),
}
"""Blocks that are computed again."""


@contextmanager
def checkpointed(base: Base, how: Checkpointing) -> Iterator[None]:
    """Inside, a base's blocks are computed again in the backward pass: the same numbers from less memory."""
    if how == "whole" and base.device.type == "cpu":
        large_tensors_apart()
    with ExitStack() as stack:
        for network in (base.unet, *base.text_encoders):
            for module in list(network.modules()):
                if isinstance(module, BLOCKS[how]):
                    replace_forward(stack, module, _again(module.forward))
        yield


def _again(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        # Nothing in it is random: a LoRA's dropout asks for its masks by sample and module, and gets the same ones.
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return run
