"""Captions to conditioning: tokens, what is read out of the text encoders, and the U-Net asked with it.

A caption of more than 75 tokens is cut into pieces that are encoded one by one and joined again, as kohya's trainer
does it (library/train_util.py, get_input_ids and get_hidden_states): start, 75 tokens of each piece, end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vez.base.model import Base, TextNetwork
from vez.nets.clip import ProjectedTextEncoder


@dataclass(frozen=True)
class Conditioning:
    """What the U-Net is told of N captions: ``states`` (N, T, D), and ``pooled`` (N, P) where its family has it."""

    states: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.states)

    def at(self, index: Tensor | slice) -> Self:
        """The conditioning of some of the captions."""
        return type(self)(self.states[index], None if self.pooled is None else self.pooled[index])

    def each(self, times: int) -> Self:
        """Each caption's ``times`` in a row."""
        pooled = None if self.pooled is None else self.pooled.repeat_interleave(times, dim=0)
        return type(self)(self.states.repeat_interleave(times, dim=0), pooled)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several one after the other."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return cls(torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None)


def tokenize(base: Base, captions: Sequence[str]) -> Tensor:
    """Captions as token ids, (N, E·C·77) int64 on the base's device: for each of E text encoders C pieces of 77.

    Most bases have E = 1, and C is 1 unless longer captions were asked for. What is longer is cut.
    """
    length = _length(base)
    rows: list[list[int]] = [[] for _ in captions]
    for tokenizer, pad in zip(base.tokenizers, base.pads, strict=True):
        total = base.chunks * (length - 2) + 2
        coded = tokenizer.encode(captions, longest=total)
        for row, ids in zip(rows, coded, strict=True):
            row += _pieces(ids, chunks=base.chunks, length=length, end=tokenizer.end, pad=pad)
    return torch.tensor(rows, dtype=torch.int64, device=base.device).view(len(captions), -1)


def _length(base: Base) -> int:
    return base.text_encoder.config.max_position_embeddings


def _pieces(ids: list[int], *, chunks: int, length: int, end: int, pad: int) -> list[int]:
    """The ids of one caption, start and end included, filled up and cut into pieces with a start and an end each."""
    ids = ids + [pad] * (chunks * (length - 2) + 2 - len(ids))
    if chunks == 1:
        return ids
    cut: list[int] = []
    for i in range(1, len(ids) - 1, length - 2):
        piece = [ids[0], *ids[i : i + length - 2], ids[-1]]
        if pad != end:  # as OpenCLIP is filled up: the end stands once, right after the text
            if piece[-2] not in (end, pad):
                piece[-1] = end
            if piece[1] == pad:
                piece[1] = end
        cut += piece
    return cut


def condition(base: Base, tokens: Tensor) -> Conditioning:
    """Token ids from `tokenize`, (N, E·C·77), as the U-Net's conditioning: states (N, 75·C + 2, D).

    The states of two text encoders stand side by side, and the last one's pooled text comes with them (SDXL).
    """
    pieces = tokens.view(len(tokens), len(base.text_encoders), base.chunks, -1)
    states, pooled = [], None
    for e, encoder in enumerate(base.text_encoders):
        read, pooled = _read(base, encoder, pieces[:, e].flatten(0, 1))
        states.append(_joined(read.view(len(tokens), base.chunks, *read.shape[1:])))
    if pooled is not None:
        pooled = pooled[:: base.chunks]  # the first piece's speaks for the caption
    return Conditioning(states[0] if len(states) == 1 else torch.cat(states, dim=-1), pooled)


def _read(base: Base, encoder: TextNetwork, ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """One text encoder's states (N, 77, D) at the layer that the base is read at, and its pooled text, if any."""
    pooled = base.family.pooled and isinstance(encoder, ProjectedTextEncoder)
    found: tuple[Tensor, Tensor | None] = encoder(ids, skip=base.clip_skip, norm=base.family.final_norm, pooled=pooled)
    return found


def _joined(states: Tensor) -> Tensor:
    """(N, C, 77, D) -> (N, 75·C + 2, D): the first start, what stands between start and end, the last end."""
    if states.shape[1] == 1:
        return states[:, 0]
    return torch.cat([states[:, 0, :1], states[:, :, 1:-1].flatten(1, 2), states[:, -1, -1:]], dim=1)


@torch.no_grad()
def encode_text(base: Base, captions: Sequence[str]) -> Conditioning:
    """Captions as the U-Net's conditioning, in the base's dtype."""
    return condition(base, tokenize(base, captions))


def predict(base: Base, x: Tensor, timesteps: Tensor | int, *, text: Conditioning, sizes: Tensor | None) -> Tensor:
    """What the U-Net says of noisy latents x (N, 4, h, w), in its dtype.

    ``sizes`` (N, 6): original height and width, top and left of the crop, target height and width, in pixels (Podell
    et al. 2023, 2.2). Read only where the family has them; others may be given None.
    """
    if base.family.pooled and (sizes is None or text.pooled is None):
        raise ValueError(f"a base of the family {base.family.name} is told sizes and a pooled text")
    told = {"pooled": text.pooled, "sizes": sizes} if base.family.pooled else {}
    out: Tensor = base.unet(x.to(base.dtype), timesteps, text.states, **told)
    return out
