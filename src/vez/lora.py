"""The LoRAs of V variants side by side over one frozen base (Hu et al. 2021; kohya's choice of modules).

Their weights lie in flat buffers, a row per variant. A module's ranks are padded to the largest: the padding is zero,
and since a zero row of down meets a zero column of up, it gets no gradient and stays zero. So does the whole module of
a variant that does not adapt it. Nothing crosses from variant to variant.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vez.base import Base
from vez.errors import LoraFileError
from vez.interop import LoraState, LoraWeights, Network, Target, base_keys, parent_of
from vez.layers import LoraConvLayer, LoraLayer, Pair, Shadow
from vez.nets.coded import CodedConvolution, CodedLinear, shape_of
from vez.pages import Zeros
from vez.shape import LoraSpec, Part, modules_of

_LARGE = 2**22  # parameters in all from which a processor casts each when it is read

__all__ = ["Kind", "LoraLayer", "LoraSet", "LoraSpec", "Segment", "Stretch", "attach"]


@dataclass(frozen=True)
class Kind:
    """What shares a learning rate: a network's downs or ups, at the share ``lr`` of its rate."""

    network: Network
    encoder: int
    up: bool
    lr: float


@dataclass(frozen=True)
class Segment:
    """Where one module's weights lie in each row of the flat buffers; ``rank`` is the padded one.

    ``inputs`` counts a convolution's kernel too; ``kernel`` is empty for a linear layer. ``parts`` has what each
    variant makes of the module, None where it leaves it alone.
    """

    key: str
    target: Target
    rank: int
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    down: slice
    up: slice
    parts: tuple[Part | None, ...]

    @property
    def network(self) -> Network:
        """The network that the module is in."""
        return self.target.network

    def kind(self, variant: int, *, up: bool) -> Kind:
        """What its downs, or ups, share a variant's learning rate with."""
        part = self.parts[variant]
        return Kind(self.target.network, self.target.encoder, up, part.lr if part else 1.0)


@dataclass(frozen=True)
class Stretch:
    """Columns of one variant that are of one kind."""

    columns: slice
    kind: Kind


class LoraSet:
    """The LoRAs of V variants, attached to a base. ``params`` and ``grads`` are (V, P) fp32: one row per variant.

    The text encoder's columns come first (``columns["text"]``), then the U-Net's. Made by `attach`.
    """

    def __init__(self, base: Base, specs: Sequence[LoraSpec], segments: Sequence[Segment]) -> None:
        self.base, self.specs, self.segments = base, tuple(specs), tuple(segments)
        self.columns: dict[Network, slice] = {"text": slice(0, 0), "unet": slice(0, 0)}
        for network in self.columns:
            own = [part for s in segments if s.network == network for part in (s.down, s.up)]
            if own:
                self.columns[network] = slice(min(part.start for part in own), max(part.stop for part in own))
        self.params = torch.zeros(len(specs), max(s.up.stop for s in segments), device=base.device)
        self._gradients = Zeros(self.params.shape, device=base.device)
        self.grads = self._gradients.tensor
        frugal = base.device.type == "cpu" and self.params.numel() >= _LARGE  # there a cast costs less than its memory
        self._shadow = None if frugal else Shadow(self.params)
        self.stretches = [_stretches(segments, v) for v in range(len(specs))]
        self._layers: list[tuple[nn.Module, str, LoraLayer | LoraConvLayer]] = []
        for segment in segments:
            parent, name = parent_of(base, segment.target)
            module: Any = parent.get_submodule(name)
            kind = LoraConvLayer if segment.target.kernel > 1 else LoraLayer
            layer = kind(module, self._pair(segment))
            self._layers.append((parent, name, layer))
            setattr(parent, name, layer)
        self.set_strength(1.0)

    def _pair(self, segment: Segment) -> Pair:
        down, up = (-1, segment.rank, segment.inputs), (-1, segment.outputs, segment.rank)
        return Pair(
            self.params[:, segment.down].view(down).requires_grad_(),
            self.params[:, segment.up].view(up).requires_grad_(),
            self.grads[:, segment.down].view(down),
            self.grads[:, segment.up].view(up),
            ranks=[part.rank if part else 0 for part in segment.parts],
            shadow=self._shadow,
        )

    def set_strength(self, strength: float) -> None:
        """Multiply every variant's LoRA by ``strength`` (1 as trained, 0 the base alone)."""
        known: dict[tuple[float, ...], Tensor | None] = {(1.0,) * len(self.specs): None}
        for segment, (_, _, layer) in zip(self.segments, self._layers, strict=True):
            scales = tuple(strength * part.scale if part else 1.0 for part in segment.parts)
            if scales not in known:
                known[scales] = torch.tensor(scales, device=self.params.device).view(-1, 1, 1)
            layer.pair.scale = known[scales]

    def drop(self, key: str, mask: Callable[[int], Tensor | None]) -> None:
        """Have a module ask ``mask``, at every pass through it, what to multiply by between down and up."""
        for segment, (_, _, layer) in zip(self.segments, self._layers, strict=True):
            if segment.key == key:
                layer.pair.drop = mask

    def trains(self, variant: int, network: Network) -> bool:
        """Whether the variant adapts any module of this network."""
        return any(stretch.kind.network == network for stretch in self.stretches[variant])

    def parts(self, variant: int) -> dict[str, Part]:
        """Each module's rank and alpha in one variant; only of what it adapts."""
        return {s.key: part for s in self.segments if (part := s.parts[variant]) is not None}

    def rows(self, buffer: Tensor, variant: int) -> dict[str, tuple[Tensor, Tensor]]:
        """One variant's row of a (V, P) buffer by module: views (rank, in) and (out, rank), without the padding."""
        return {
            s.key: (
                buffer[variant, s.down].view(s.rank, s.inputs)[: part.rank],
                buffer[variant, s.up].view(s.outputs, s.rank)[:, : part.rank],
            )
            for s in self.segments
            if (part := s.parts[variant]) is not None
        }

    def state(self, variant: int) -> LoraState:
        """A copy of one variant's weights in kohya's names and shapes, fp32, on the CPU; only of what it trains."""
        rows, found = self.rows(self.params.detach(), variant), {}
        for s in self.segments:
            part = s.parts[variant]
            if part is not None:
                down, up = rows[s.key]
                down = down.reshape(part.rank, -1, *s.kernel)
                up = up.reshape(*up.shape, *(1 for _ in s.kernel))
                found[s.key] = LoraWeights(down.cpu().clone(), up.cpu().clone(), part.alpha)
        return found

    def load_state(self, variant: int, state: LoraState) -> None:
        """Put weights into one variant. Raises LoraFileError unless modules, shapes, rank and alpha are its own."""
        parts, rows = self.parts(variant), self.rows(self.params, variant)
        if state.keys() != rows.keys():
            odd = sorted(state.keys() ^ rows.keys())[0]
            raise LoraFileError(f"these weights and the variant do not adapt the same modules ({odd[:80]})")
        for key, (down, up) in rows.items():
            given = state[key]
            if given.down.flatten(1).shape != down.shape or given.up.flatten(1).shape != up.shape:
                raise LoraFileError(f"{key} has the rank {given.rank}, not {parts[key].rank}, or another base's width")
            if not math.isclose(given.alpha, parts[key].alpha, rel_tol=1e-3):
                raise LoraFileError(f"{key} has alpha {given.alpha:g}, not {parts[key].alpha:g}")
        with torch.no_grad():
            for key, (down, up) in rows.items():
                down.copy_(state[key].down.flatten(1))
                up.copy_(state[key].up.flatten(1))

    @contextmanager
    def only(self, variant: int) -> Iterator[None]:
        """Inside, batches are (B, …), of one variant alone and without dropout. Nothing can be trained there."""
        kept = [layer.pair for _, _, layer in self._layers]
        one = slice(variant, variant + 1)
        for (_, _, layer), pair in zip(self._layers, kept, strict=True):
            named = {
                field.name: getattr(pair, field.name)
                for field in dataclasses.fields(pair)
                if field.name not in ("drop", "shadow")
            }
            with torch.no_grad():  # views that know of no gradient
                rows: dict[str, Any] = {name: None if of is None else of[one] for name, of in named.items()}
            layer.pair = dataclasses.replace(pair, drop=None, **rows)
        try:
            yield
        finally:
            for (_, _, layer), pair in zip(self._layers, kept, strict=True):
                layer.pair = pair

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

    def clear_gradients(self) -> None:
        """Zeros again, and no memory where that can be."""
        self._gradients.clear()

    def detach(self) -> None:
        """Give the base its own modules back; doing so twice is fine."""
        for parent, name, layer in self._layers:
            setattr(parent, name, layer.base)
        self._layers.clear()


def attach(base: Base, variants: Sequence[LoraSpec], *, seed: int) -> LoraSet:
    """Put V LoRAs side by side on the base; then every batch through it is (V·B, …), variant after variant.

    kohya's initialisation: down uniform as kaiming_uniform(a=√5), up zero, so that the LoRA does nothing yet. The
    weights of a module depend on (seed, module, rank) alone, and a smaller rank's are the first rows of a larger one's.
    What no variant adapts is left alone. Raises LoraFileError where the base lacks a module, ConfigError where a
    variant names what the base lacks.
    """
    adapted = [modules_of(base.layout, spec) for spec in variants]
    found: dict[str, tuple[Target, Any, tuple[Part | None, ...]]] = {}
    for key, target in base_keys(base, resnets=any(spec.resnets for spec in variants)).items():
        parts = tuple(modules[key][1] if key in modules else None for modules in adapted)
        if any(parts):
            found[key] = (target, _module(base, target), parts)
    lora = LoraSet(base, variants, _segments(found))
    for v in range(len(variants)):
        for key, (down, _) in lora.rows(lora.params.detach(), v).items():
            down.copy_(torch.from_numpy(_initial_down(key, seed=seed, rank=down.shape[0], inputs=down.shape[1])))
    return lora


def _module(base: Base, target: Target) -> nn.Module:
    """The base's module, which can be adapted. Raises LoraFileError."""
    parent, name = parent_of(base, target)
    module = parent.get_submodule(name)
    if isinstance(module, LoraLayer | LoraConvLayer):
        raise LoraFileError(f"the base {base.name!r} has LoRAs attached already; detach them first")
    convolution = isinstance(module, nn.Conv2d | CodedConvolution)
    if convolution and module.kernel_size == (target.kernel, target.kernel) and module.groups == 1:
        return module
    if not isinstance(module, nn.Linear | CodedLinear):
        raise LoraFileError(f"{target.path} of {base.name!r} is a {type(module).__name__}, which cannot be adapted")
    return module


def _segments(found: Mapping[str, tuple[Target, Any, tuple[Part | None, ...]]]) -> list[Segment]:
    """Places in the flat buffer: network by network all downs, then all ups, so that rates lie in few stretches."""
    segments, end = [], 0
    for _, group in groupby(found.items(), key=lambda item: (item[1][0].network, item[1][0].encoder)):
        modules = dict(group)
        ranks = {key: max(part.rank for part in parts if part) for key, (_, _, parts) in modules.items()}
        middle = end + sum(ranks[key] * shape_of(module)[1:].numel() for key, (_, module, _) in modules.items())
        for key, (target, module, parts) in modules.items():
            outputs, inputs = shape_of(module)[0], shape_of(module)[1:].numel()
            down, up = (slice(at, at + ranks[key] * n) for at, n in ((end, inputs), (middle, outputs)))
            kernel = tuple(shape_of(module)[2:])
            segments.append(Segment(key, target, ranks[key], inputs, outputs, kernel, down, up, parts))
            end, middle = down.stop, up.stop
        end = middle
    return segments


def _stretches(segments: Sequence[Segment], variant: int) -> tuple[Stretch, ...]:
    """What one variant trains, in the order of the columns; neighbours of one rate are joined."""
    found: list[Stretch] = []
    each = [(s, columns, up) for s in segments for columns, up in ((s.down, False), (s.up, True)) if s.parts[variant]]
    for segment, columns, up in sorted(each, key=lambda one: one[1].start):
        kind = segment.kind(variant, up=up)
        if found and found[-1].kind == kind and found[-1].columns.stop == columns.start:
            columns = slice(found.pop().columns.start, columns.stop)
        found.append(Stretch(columns, kind))
    return tuple(found)


def _initial_down(key: str, *, seed: int, rank: int, inputs: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """kaiming_uniform(a=√5) is uniform in ±1/√in; (rank, in) fp32."""
    number = int.from_bytes(hashlib.sha256(f"lora-1:{seed}:{key}".encode()).digest()[:16], "little")
    uniform = np.random.Generator(np.random.Philox(number)).random((rank, inputs), dtype=np.float32)
    return ((uniform * 2 - 1) / np.float32(math.sqrt(inputs))).astype(np.float32)
