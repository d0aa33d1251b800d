"""LoRA layers: V variants side by side over one frozen weight (Hu et al. 2021; kohya's choice of modules).

Activations are (V·B, …), variant after variant. The base multiplies once over all of them; each variant's down and up
multiply their own part, by batched products over V. Ranks are padded to the largest: the padding is zero, and since a
zero row of down meets a zero column of up, it gets no gradient and stays zero. Nothing crosses from variant to variant.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vez.base import Base
from vez.errors import LoraFileError
from vez.interop import LoraState, LoraWeights, Network, base_keys, parent_of


@dataclass(frozen=True)
class LoraSpec:
    """One variant's LoRA: its rank, its alpha (scale = alpha/rank), and which networks it adapts."""

    rank: int
    alpha: float
    unet: bool = True
    text: bool = True


@dataclass(frozen=True)
class Segment:
    """Where one module's weights lie in each row of the flat buffers; ranks there are padded."""

    key: str
    network: Network
    inputs: int
    outputs: int
    convolution: bool
    down: slice
    up: slice


class _LoraProduct(torch.autograd.Function):
    """y = x Wᵀ + b + s · (x downᵀ) upᵀ for frozen W, as one node: no sum of two input gradients, one copy of x kept.

    Gradients of down and up are added straight into their views of the flat buffer; autograd gets none of them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pair: "_Pair",
        down: Tensor,
        up: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """x (V, N, in), weight (out, in); ``down`` (V, R, in) and ``up`` (V, out, R) are the pair's.

        ``mask`` (V, N, R) multiplies what is between them (dropout); None is all ones.
        """
        down, up = down.to(x.dtype), up.to(x.dtype)
        if pair.scale is not None:
            up = up * pair.scale.to(x.dtype)
        hidden = torch.bmm(x, down.mT)  # (V, N, R)
        if mask is not None:
            mask = mask.to(x.dtype)
            hidden = hidden * mask
        y = F.linear(x, weight, bias)  # (V, N, out)
        y.baddbmm_(hidden, up.mT)
        ctx.save_for_backward(x, weight, down, up, hidden, mask)
        ctx.pair = pair
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of x; down's and up's are added to the pair's, in fp32 as the parameters are."""
        x, weight, down, up, hidden, mask = ctx.saved_tensors
        pair: _Pair = ctx.pair
        dy = grads[0]
        d_hidden = torch.bmm(dy, up)  # (V, N, R); up carries the scale
        if mask is not None:
            d_hidden = d_hidden * mask
        d_up = torch.bmm(dy.mT, hidden).float()  # (V, out, R)
        pair.up_grad.add_(d_up if pair.scale is None else d_up.mul_(pair.scale))
        pair.down_grad.add_(torch.bmm(d_hidden.mT, x).float())  # (V, R, in)
        dx = None
        if ctx.needs_input_grad[0]:  # False at the first LoRA layer: the gradient stops there
            dx = dy @ weight
            dx.baddbmm_(d_hidden, down)
        return dx, None, None, None, None, None, None


@dataclass
class _Pair:
    """One module's weights of all variants, views of flat buffers; ``scale`` (V, 1, 1) is alpha/rank, None for 1.

    ``drop`` gives, for N positions, the (V, N, R) mask of a dropout, or None for no mask.
    """

    down: Tensor
    up: Tensor
    down_grad: Tensor
    up_grad: Tensor
    scale: Tensor | None = None
    drop: Callable[[int], Tensor | None] | None = None


class LoraLayer(nn.Module):
    """Stands in for one Linear or 1×1 convolution of the base while LoRAs are attached to it."""

    def __init__(self, base: nn.Module, pair: _Pair) -> None:
        super().__init__()
        self.base, self.pair = base, pair

    def forward(self, x: Tensor) -> Tensor:
        """(V·B, …, in) -> (V·B, …, out); of a convolution (V·B, in, h, w) -> (V·B, out, h, w)."""
        if x.dim() == 4:
            out = self._product(x.flatten(2).mT)  # (V·B, h·w, out)
            image = out.mT.view(len(x), -1, *x.shape[2:])
            return image.contiguous() if x.is_contiguous() else image
        return self._product(x)

    def _product(self, x: Tensor) -> Tensor:
        weight: Any = self.base.weight
        pair = self.pair
        rows = x.reshape(len(pair.down), -1, x.shape[-1])  # (V, B·tokens, in)
        apply: Any = _LoraProduct.apply
        mask = None if pair.drop is None else pair.drop(rows.shape[1])
        y: Tensor = apply(rows, weight.flatten(1), self.base.bias, pair, pair.down, pair.up, mask)
        return y.view(*x.shape[:-1], y.shape[-1])


class LoraSet:
    """The LoRAs of V variants, attached to a base. ``params`` and ``grads`` are (V, P) fp32: one row per variant.

    The text encoder's columns come first (``columns["text"]``), then the U-Net's. Made by `attach`.
    """

    def __init__(self, base: Base, specs: Sequence[LoraSpec], segments: Sequence[Segment]) -> None:
        self.base, self.specs, self.segments = base, tuple(specs), tuple(segments)
        self.columns: dict[Network, slice] = {"text": slice(0, 0), "unet": slice(0, 0)}
        for segment in segments:
            known = self.columns[segment.network]
            start = segment.down.start if known.start == known.stop else known.start
            self.columns[segment.network] = slice(start, segment.up.stop)
        width = segments[-1].up.stop
        self.params = torch.zeros(len(specs), width, device=base.device)
        self.grads = torch.zeros_like(self.params)
        self._layers: list[tuple[nn.Module, str, LoraLayer]] = []
        keys = base_keys(base)
        for segment in segments:
            parent, name = parent_of(base, keys[segment.key])
            module = parent.get_submodule(name)
            layer = LoraLayer(module, self._pair(segment))
            self._layers.append((parent, name, layer))
            setattr(parent, name, layer)
        self.set_strength(1.0)

    def _pair(self, segment: Segment) -> _Pair:
        rank = max(spec.rank for spec in self.specs)
        down, up = (-1, rank, segment.inputs), (-1, segment.outputs, rank)
        return _Pair(
            self.params[:, segment.down].view(down).requires_grad_(),
            self.params[:, segment.up].view(up).requires_grad_(),
            self.grads[:, segment.down].view(down),
            self.grads[:, segment.up].view(up),
        )

    def set_strength(self, strength: float) -> None:
        """Multiply every variant's LoRA by ``strength`` (1 as trained, 0 the base alone)."""
        scales = [strength * spec.alpha / spec.rank for spec in self.specs]
        scale = torch.tensor(scales, device=self.params.device).view(-1, 1, 1)
        for _, _, layer in self._layers:
            layer.pair.scale = None if scales == [1.0] * len(scales) else scale

    def drop(self, key: str, mask: Callable[[int], Tensor | None]) -> None:
        """Have a module ask ``mask``, at every pass through it, what to multiply by between down and up."""
        for segment, (_, _, layer) in zip(self.segments, self._layers, strict=True):
            if segment.key == key:
                layer.pair.drop = mask

    def trains(self, variant: int, network: Network) -> bool:
        """Whether the variant adapts this network."""
        return self.specs[variant].text if network == "text" else self.specs[variant].unet

    def rows(self, buffer: Tensor, variant: int) -> dict[str, tuple[Tensor, Tensor]]:
        """One variant's row of a (V, P) buffer by module: views (rank, in) and (out, rank), without the padding."""
        rank, padded = self.specs[variant].rank, max(spec.rank for spec in self.specs)
        return {
            s.key: (
                buffer[variant, s.down].view(padded, s.inputs)[:rank],
                buffer[variant, s.up].view(s.outputs, padded)[:, :rank],
            )
            for s in self.segments
            if self.trains(variant, s.network)
        }

    def state(self, variant: int) -> LoraState:
        """A copy of one variant's weights in kohya's names and shapes, fp32, on the CPU; only of what it trains."""
        alpha = self.specs[variant].alpha
        images = {s.key: (..., None, None) if s.convolution else (...,) for s in self.segments}
        return {
            key: LoraWeights(down[images[key]].cpu().clone(), up[images[key]].cpu().clone(), alpha)
            for key, (down, up) in self.rows(self.params.detach(), variant).items()
        }

    def load_state(self, variant: int, state: LoraState) -> None:
        """Put weights into one variant. Raises LoraFileError unless modules, shapes, rank and alpha are its own."""
        spec, rows = self.specs[variant], self.rows(self.params, variant)
        if state.keys() != rows.keys():
            odd = sorted(state.keys() ^ rows.keys())[0]
            raise LoraFileError(f"these weights and the variant do not adapt the same modules ({odd[:80]})")
        for key, (down, up) in rows.items():
            given = state[key]
            if given.down.flatten(1).shape != down.shape or given.up.flatten(1).shape != up.shape:
                raise LoraFileError(f"{key} has the rank {given.rank}, not {spec.rank}, or another base's width")
            if not math.isclose(given.alpha, spec.alpha, rel_tol=1e-3):
                raise LoraFileError(f"{key} has alpha {given.alpha:g}, not {spec.alpha:g}")
        with torch.no_grad():
            for key, (down, up) in rows.items():
                down.copy_(state[key].down.flatten(1))
                up.copy_(state[key].up.flatten(1))

    @contextmanager
    def without(self) -> Iterator[None]:
        """Inside, the base is without its LoRAs; what went through them before can still go backward."""
        for parent, name, layer in self._layers:
            setattr(parent, name, layer.base)
        try:
            yield
        finally:
            for parent, name, layer in self._layers:
                setattr(parent, name, layer)

    def detach(self) -> None:
        """Give the base its own modules back; doing so twice is fine."""
        for parent, name, layer in self._layers:
            setattr(parent, name, layer.base)
        self._layers.clear()


def attach(base: Base, variants: Sequence[LoraSpec], *, seed: int) -> LoraSet:
    """Put V LoRAs side by side on the base; then every batch through it is (V·B, …), variant after variant.

    kohya's initialisation: down uniform as kaiming_uniform(a=√5), up zero, so that the LoRA does nothing yet. The
    weights of a module depend on (seed, module, rank) alone, and a smaller rank's are the first rows of a larger one's.
    A network that no variant adapts is left alone. Raises LoraFileError where the base lacks a module.
    """
    padded = max(spec.rank for spec in variants)
    segments: list[Segment] = []
    end = 0
    for key, target in base_keys(base).items():
        if not any(spec.text if target.network == "text" else spec.unet for spec in variants):
            continue
        parent, name = parent_of(base, target)
        module = parent.get_submodule(name)
        if isinstance(module, LoraLayer):
            raise LoraFileError(f"the base {base.name!r} has LoRAs attached already; detach them first")
        if not isinstance(module, nn.Linear) and not (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)):
            raise LoraFileError(f"{target.path} of {base.name!r} is a {type(module).__name__}, which cannot be adapted")
        outputs, inputs = module.weight.shape[:2]
        middle, stop = end + padded * inputs, end + padded * (inputs + outputs)
        convolution = isinstance(module, nn.Conv2d)
        segments.append(
            Segment(key, target.network, inputs, outputs, convolution, slice(end, middle), slice(middle, stop))
        )
        end = stop
    lora = LoraSet(base, variants, segments)
    for v in range(len(variants)):
        for key, (down, _) in lora.rows(lora.params.detach(), v).items():
            down.copy_(torch.from_numpy(_initial_down(key, seed=seed, rank=down.shape[0], inputs=down.shape[1])))
    return lora


def _initial_down(key: str, *, seed: int, rank: int, inputs: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """kaiming_uniform(a=√5) is uniform in ±1/√in; (rank, in) fp32."""
    number = int.from_bytes(hashlib.sha256(f"lora-1:{seed}:{key}".encode()).digest()[:16], "little")
    uniform = np.random.Generator(np.random.Philox(number)).random((rank, inputs), dtype=np.float32)
    return ((uniform * 2 - 1) / np.float32(math.sqrt(inputs))).astype(np.float32)
