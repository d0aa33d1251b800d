"""Small deterministic solvers: from noise that depends on a number alone to clean latents.

DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, Algorithm 2) and DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12)
with classifier-free guidance (Ho & Salimans 2022). Both are linear in what they combine, so a step is five numbers,
worked out beforehand in double precision. The timesteps are those that diffusers takes by default:
DPMSolverMultistepScheduler's "linspace" with a final sigma of 0 (first order in the last step), and for DDIM the
"leading" spacing with an offset of 1 that Stable Diffusion's own configuration asks for; "trailing" where the schedule
ends in pure noise (Lin et al. 2023).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vez.base import Base, Conditioning, predict
from vez.config import Precision
from vez.errors import ConfigError
from vez.nets.inference import FrozenUNet

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NEARLY_NOISE = 2.0**-24  # diffusers' stand-in for a signal of 0, whose logarithm the solver could not take


@dataclass(frozen=True)
class Move:
    """One step of a solver: clean = p·x + q·out; x' = a·x + b·clean + c·(the clean of the step before)."""

    timestep: int
    p: float
    q: float
    a: float
    b: float
    c: float


def moves(
    alphas_cumprod: NDArray[np.float64],
    steps: int,
    *,
    solver: Literal["dpm++2m", "ddim"] = "dpm++2m",
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
) -> tuple[Move, ...]:
    """A solver's whole walk from noise to picture.

    Args:
        alphas_cumprod: (T,) the base's noise schedule.
        steps: how many times the U-Net is asked; at most T - 1.
        solver: "dpm++2m" or "ddim".
        prediction_type: what the U-Net's output is.
    Raises:
        ConfigError: more steps than the schedule has different timesteps for.
    """
    trained = len(alphas_cumprod)
    if not 1 <= steps < trained:
        raise ConfigError(f"sampling.steps is {steps}, but this base has {trained} timesteps; take fewer than that")
    pure_noise = alphas_cumprod[-1] == 0  # a zero terminal SNR: the walk must begin at the very last timestep
    if pure_noise and prediction_type == "epsilon":
        raise ConfigError("epsilon says nothing about pure noise: a schedule of zero terminal SNR needs v_prediction")
    if solver == "ddim":
        ratio = trained // steps
        timesteps = np.arange(steps)[::-1] * ratio + 1
        if pure_noise:
            timesteps = np.arange(trained, 0, -trained / steps).round().astype(np.int64) - 1
        # Past the first timestep there is no cleaner level than the first (set_alpha_to_one = false).
        target = alphas_cumprod[np.maximum(timesteps - ratio, 0)]
    else:
        alphas_cumprod = np.maximum(alphas_cumprod, _NEARLY_NOISE)
        timesteps = np.linspace(0, trained - 1, steps + 1).round()[::-1][:-1].astype(np.int64)
        target = np.append(alphas_cumprod[timesteps[1:]], 1.0)
    source = alphas_cumprod[timesteps]
    alpha, sigma = np.sqrt(source), np.sqrt(1 - source)
    alpha_to, sigma_to = np.sqrt(target), np.sqrt(1 - target)
    p, q = (1 / alpha, -sigma / alpha) if prediction_type == "epsilon" else (alpha, -sigma)
    a = sigma_to / sigma
    first_order = alpha_to - alpha * a  # = -alpha_to·(exp(-h) - 1), h the step in log(alpha/sigma)
    extrapolate = np.zeros(steps)
    if solver == "dpm++2m":
        half_logsnr = np.log(alpha / sigma)
        for i in range(1, steps - 1):  # the first has no step before it; the last, to sigma 0, is of first order
            r = (half_logsnr[i] - half_logsnr[i - 1]) / (np.log(alpha_to[i] / sigma_to[i]) - half_logsnr[i])
            extrapolate[i] = 0.5 / r
    b, c = first_order * (1 + extrapolate), -first_order * extrapolate
    columns = zip(timesteps, p, q, a, b, c, strict=True)
    return tuple(Move(int(t), *(float(value) for value in row)) for t, *row in columns)


def noise_seed(i: int) -> int:
    """The seed of the i-th noise, the same for every prompt, arm and study: 32 bits of sha256("vez-eval-1:<i>")."""
    return int.from_bytes(hashlib.sha256(f"vez-eval-1:{i}".encode()).digest()[:4], "big")


def noise(seeds: Sequence[int], height: int, width: int) -> Tensor:
    """Starting latents (N, 4, height, width) fp32, drawn on the CPU, each from its own `noise_seed`."""
    shape = (1, 4, height, width)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(noise_seed(i))) for i in seeds])


@torch.inference_mode()
def denoise(
    base: Base,
    latents: Tensor,
    *,
    text: Conditioning,
    negative: Conditioning,
    walk: Sequence[Move],
    cfg: float,
    precision: Precision | None = None,
    unet: FrozenUNet | None = None,
) -> Tensor:
    """Walk from noise (B, 4, h, w) to clean scaled latents (B, 4, h, w) fp32 on the base's device.

    ``text`` and ``negative`` are of B texts each. Both are asked in one forward pass; without guidance (cfg = 1) only
    the text is. ``precision`` is what the U-Net multiplies in, None for the base's own; the walk itself is always fp32.
    ``unet`` is asked in place of the base's U-Net and has a precision of its own. A base that is told sizes is told
    that the picture was this large and nothing was cut off.
    """
    x = latents.to(base.device, torch.float32)
    guided = cfg != 1
    asked_for = Conditioning.joined([negative, text]) if guided else text
    height, width = (side * base.latent_factor for side in x.shape[2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(asked_for), dtype=torch.float32, device=x.device)
    told = None
    if unet is not None:
        told = unet.told(asked_for.states, pooled=asked_for.pooled, sizes=sizes)
    half = _HALF.get(precision or "")
    before: Tensor | None = None
    for move in walk:
        if unet is not None and told is not None:
            out = unet(x, move.timestep, told).float()
        else:
            asked = torch.cat([x, x]) if guided else x  # (2B, 4, h, w)
            with torch.autocast(base.device.type, half, enabled=half is not None):
                out = predict(base, asked, move.timestep, text=asked_for, sizes=sizes).float()
        if guided:
            without, with_text = out.chunk(2)
            out = without + cfg * (with_text - without)
        clean = move.p * x + move.q * out
        x = move.a * x + move.b * clean
        if before is not None and move.c != 0:
            x = x + move.c * before
        before = clean
    return x
