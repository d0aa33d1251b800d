"""What a variant does to a sample's noise: offset, coarser grids, more of it than the U-Net is to predict.

All on the CPU and from the sample's own seed, so the noise depends on no batch, no neighbour and no device.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vez.config import Variant
from vez.tape import dice


def changes_noise(variant: Variant) -> bool:
    """Whether a variant's noise is another than the tape's."""
    return bool(variant.noise_offset or variant.multires_noise or variant.input_perturbation)


def changed(variant: Variant, noise: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
    """(what is to be predicted, what the latents are mixed with), each (C, h, w) fp32, of one sample's ``noise``.

    In kohya's order: the offset, then the coarser grids, then the perturbation, which only the U-Net sees (Ning et al.
    2023, "Input Perturbation Reduces Exposure Bias in Diffusion Models", alg. 1). A random strength is the sample's
    own, where kohya draws one for its batch.
    """
    if variant.noise_offset:
        strength = variant.noise_offset
        if variant.noise_offset_random:
            strength *= dice(seed, "offset-strength").random()
        noise = with_offset(noise, strength, seed=seed)
    if variant.multires_noise:
        noise = with_coarser(noise, variant.multires_noise, discount=variant.multires_discount, seed=seed)
    if not variant.input_perturbation:
        return noise, noise
    more = torch.from_numpy(dice(seed, "perturbation").standard_normal(tuple(noise.shape), dtype=np.float32))
    gamma = variant.input_perturbation
    if variant.input_perturbation_random:
        gamma *= dice(seed, "perturbation-strength").random()
    return noise, noise + gamma * more


def with_offset(noise: Tensor, strength: float, *, seed: int) -> Tensor:
    """The noise (C, h, w) and ``strength`` times one more standard normal number per channel.

    N. Guttenberg, "Diffusion with Offset Noise", crosslabs.org, 2023.
    """
    offset = dice(seed, "offset").standard_normal((noise.shape[0], 1, 1), dtype=np.float32)
    return noise + strength * torch.from_numpy(offset)


def with_coarser(noise: Tensor, grids: int, *, discount: float, seed: int) -> Tensor:
    """The noise (C, h, w) with up to ``grids`` coarser ones, each ``discount`` of the one before, at unit variance.

    J. Whitaker, "Multi-Resolution Noise for Diffusion Model Training", 2023. Each grid is the picture's size over
    r^i, r drawn from [2, 4); they end at a side of one cell. The variance is the sample's own, where kohya takes its
    batch's.
    """
    random = dice(seed, "grids")
    channels, height, width = noise.shape
    total = noise
    for i in range(grids):
        r = random.random() * 2 + 2
        size = max(1, int(height / r**i)), max(1, int(width / r**i))
        grid = torch.from_numpy(random.standard_normal((1, channels, *size), dtype=np.float32))
        total = total + interpolate(grid, (height, width), mode="bilinear")[0] * discount**i
        if 1 in size:
            break
    return total / total.std()
