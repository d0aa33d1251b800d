"""The loop that trains every model of the embedded base: AdamW, cosine decay, EMA; resumable, exact in its seed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long and how fast one model is trained."""

    steps: int
    lr: float
    warmup: int = 60
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    save_seconds: float = 60.0

    def rate(self, step: int) -> float:
        """Learning rate of `step`: linear warm-up, then half a cosine down to a hundredth."""
        share = step / self.steps
        return self.lr * min(1.0, (step + 1) / self.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _save(path: Path, tensors: dict[str, Tensor], about: Mapping[str, float]) -> None:
    partial = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"about": json.dumps(dict(about))})
    partial.replace(path)


class Trainer:
    """The state of one model's training: parameters, AdamW's moments, the running average, the step."""

    def __init__(
        self, name: str, model: nn.Module, *, plan: Plan, folder: Path, scale: Mapping[str, float] | None = None
    ) -> None:
        self.name, self.plan, self.file = name, plan, folder / f"{name}.state.safetensors"
        self.named = {k: p for k, p in model.named_parameters() if p.requires_grad}
        groups = []
        for prefix, factor in (scale or {"": 1.0}).items():
            members = [p for k, p in self.named.items() if k.startswith(prefix)]
            groups.append({"params": members, "lr": plan.lr * factor, "factor": factor})
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True)
        self.average = {k: p.detach().clone() for k, p in self.named.items()}
        self.step, self.seconds = 0, 0.0
        if self.file.is_file():
            self._load()

    def _load(self) -> None:
        with safe_open(self.file, "pt") as state:
            about = json.loads(state.metadata()["about"])
            self.step, self.seconds = int(about["step"]), float(about["seconds"])
            with torch.no_grad():
                for k, p in self.named.items():
                    p.copy_(state.get_tensor(f"now.{k}"))
                    self.average[k].copy_(state.get_tensor(f"average.{k}"))
                    self.optimizer.state[p] = {
                        "step": torch.tensor(float(self.step)),
                        "exp_avg": torch.empty_like(p).copy_(state.get_tensor(f"first.{k}")),
                        "exp_avg_sq": torch.empty_like(p).copy_(state.get_tensor(f"second.{k}")),
                    }

    def save(self) -> None:
        """Write the whole state, atomically."""
        tensors: dict[str, Tensor] = {}
        for k, p in self.named.items():
            moments = self.optimizer.state[p]
            tensors |= {
                f"now.{k}": p.detach(),
                f"average.{k}": self.average[k],
                f"first.{k}": moments["exp_avg"],
                f"second.{k}": moments["exp_avg_sq"],
            }
        _save(self.file, tensors, {"step": self.step, "seconds": self.seconds})

    def run(self, loss_of: Callable[[np.random.Generator], tuple[Tensor, dict[str, float]]], *, say: Say) -> None:
        """Train to the end of the plan. `loss_of` draws its batch from the generator it is given."""
        started, saved, lines = time.monotonic() - self.seconds, time.monotonic(), []
        while self.step < self.plan.steps:
            rng = np.random.default_rng([self.plan.seed, self.step])
            torch.manual_seed(int(rng.integers(2**31)))
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate(self.step) * group["factor"]
            loss, figures = loss_of(rng)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(list(self.named.values()), self.plan.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.step += 1
            decay = min(self.plan.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.values()), list(self.named.values()), 1 - decay)
            lines.append({"loss": float(loss.detach()), **figures})
            self.seconds = time.monotonic() - started
            if self.step % 100 == 0 or self.step in (3, 20):
                mean = " ".join(f"{k} {np.mean([line[k] for line in lines]):.4f}" for k in lines[0])
                say(f"{self.name} {self.step}/{self.plan.steps} {self.seconds:.0f} s {mean}")
                lines = []
            if time.monotonic() - saved > self.plan.save_seconds:
                self.save()
                saved = time.monotonic()
        self.save()

    def use_average(self) -> None:
        """Put the running average into the model."""
        with torch.no_grad():
            for k, p in self.named.items():
                p.copy_(self.average[k])
