"""The blocks of U-Nets and text encoders as few nodes of autograd each: what goes in is kept, the rest made again.

Norms, gates and activations are cheap, and their results are never kept. Each function takes modules as they are, with
a LoRA in a linear layer's place or not; a ResNet block takes frozen modules alone.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vez.nets.kernels.adapted import Layer, Layers
from vez.nets.kernels.convolution import LAST, convolve, convolve_back
from vez.nets.kernels.norms import (
    activated,
    activated_back,
    gelu_gated,
    gelu_gated_back,
    group_norm,
    group_norm_back,
    layer_norm,
    layer_norm_back,
)


def layer_of(module: Any) -> Layer:
    """A linear layer, a 1×1 convolution, or what stands in for one with a LoRA."""
    update = getattr(module, "pair", None)
    own = module if update is None else module.base
    return Layer(own.weight.flatten(1), own.bias, update)


def layers_of(*modules: Any) -> Layers:
    """Layers of one input; made again when one of the modules, or its LoRA, is another."""
    first, key = modules[0], tuple((module, getattr(module, "pair", None)) for module in modules)
    known = vars(first).get("_layers_of")
    if known is not None and len(known[0]) == len(key) and all(a[0] is b[0] and a[1] is b[1] for a, b in zip(known[0], key)):
        return known[1]
    ...
