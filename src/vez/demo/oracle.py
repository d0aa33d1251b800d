"""The oracle: a small classifier that reads place, weather, garment and colour off a picture of the drawn world.

It knows the truth because the world does; it serves the truth tests and the base's own figures, never a user's score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vez.demo.world.garments import COLOURS, COSTUME, GARMENTS
from vez.demo.world.places import PLACES
from vez.demo.world.scene import WEATHERS

ANSWERS: dict[str, tuple[str, ...]] = {
    "place": tuple(PLACES),
    "weather": (*WEATHERS, "indoors"),
    "garment": (*GARMENTS, COSTUME),
    "colour": (*COLOURS, ""),
}
"""The questions and their possible answers; the costume has no single colour."""


def answers(scene: Mapping[str, Any]) -> list[int]:
    """The true answers for a scene's record, as indices into `ANSWERS`."""
    return [values.index(scene[question]) for question, values in ANSWERS.items()]


class Oracle(nn.Module):
    """Five strided convolutions and one linear head a question; (B, 3, 128, 128) in [-1, 1] to four score tables."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128, 160)
        self.body = nn.Sequential(
            *[
                nn.Sequential(nn.Conv2d(a, b, 3 if i else 5, 2, 1 if i else 2), nn.BatchNorm2d(b), nn.SiLU())
                for i, (a, b) in enumerate(pairwise(widths))
            ]
        )  # (B, 160, 4, 4)
        self.heads = nn.ModuleDict({q: nn.Linear(160 * 16, len(v)) for q, v in ANSWERS.items()})

    def forward(self, x: Tensor) -> list[Tensor]:
        """Scores (B, answers) for each question in turn."""
        hidden = self.body(x).flatten(1)
        return [head(hidden) for head in self.heads.values()]


def load(folder: Path) -> Oracle:
    """The oracle as shipped beside the base."""
    model = Oracle()
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()}
    )
    return model.eval()


@torch.no_grad()
def ask(model: Oracle, pictures: np.ndarray, *, batch: int = 64) -> list[dict[str, str]]:
    """What the oracle sees in pictures (N, 128, 128, 3) uint8."""
    found: list[dict[str, str]] = []
    for i in range(0, len(pictures), batch):
        x = torch.from_numpy(np.ascontiguousarray(pictures[i : i + batch])).permute(0, 3, 1, 2).float() / 127.5 - 1
        tables = [scores.argmax(1).tolist() for scores in model(x)]
        found += [
            {q: v[k] for (q, v), k in zip(ANSWERS.items(), row, strict=True)} for row in zip(*tables, strict=True)
        ]
    return found


def questions() -> str:
    """The questions as JSON, written beside the weights."""
    return json.dumps(ANSWERS, indent=1)
