"""What moves the weights of a pass: AdamW for most variants, a foreign optimizer for some; norms held, averages kept.

The weights in the flat buffer are those that are trained. Those that are validated and saved may be others: an
exponential moving average (EMA), or the average that a schedule-free optimizer is about (`Learner.as_saved`).
"""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vez.config import Variant
from vez.errors import TrainError
from vez.foreign import Foreign
from vez.lora import LoraSet
from vez.optim import BETAS, EPS, AdamW, Rates
from vez.scaling import LossScale
from vez.soundness import broken_tensor, finite, product_norm
from vez.tape import learning_rate_factor


def rates_of(variant: Variant, step: int, *, steps: int) -> Rates:
    """A variant's settings at ``step`` (0-based) of ``steps``."""
    unet, text, text2 = (
        None
        if lr is None
        else lr
        * learning_rate_factor(
            step,
            steps=steps,
            warmup=variant.warmup,
            schedule=variant.schedule,
            cycles=variant.cycles,
            power=variant.power,
            lr=lr,
        )
        for lr in (variant.lr_unet, variant.lr_text, variant.lr_text2)
    )
    args: dict[str, Any] = variant.optimizer_args if variant.optimizer == "adamw" else {}
    beta1, beta2 = args.get("betas", BETAS)
    return Rates(
        unet or 0.0,
        text or 0.0,
        text2=text2,
        weight_decay=variant.weight_decay,
        clip=variant.clip_grad,
        plus=variant.lora_plus or 1.0,
        betas=(float(beta1), float(beta2)),
        eps=float(args.get("eps", EPS)),
    )


class Learner:
    """The optimizers of a `LoraSet`'s variants, and the step they have come to."""

    def __init__(self, lora: LoraSet, variants: Sequence[Variant]) -> None:
        """Raises MissingExtra or ConfigError where a variant's optimizer cannot be made."""
        self.lora, self.variants = lora, tuple(variants)
        self.adamw = AdamW(lora)
        self.foreign = {
            v: Foreign(
                lora, v, name=variant.optimizer, args=variant.optimizer_args, rates=rates_of(variant, 0, steps=1)
            )
            for v, variant in enumerate(variants)
            if variant.optimizer != "adamw"
        }
        any_average = any(variant.ema for variant in variants)
        self.average = lora.params.detach().clone() if any_average else None  # (V, P)
        self.scaling = LossScale(len(variants)) if lora.base.dtype == torch.float16 else None

    @property
    def steps(self) -> int:
        """Updates made."""
        return self.adamw.steps

    def norms(self) -> Tensor:
        """Each variant's gradient norm before clipping, (V,), on the weights' device."""
        return self.adamw.norms()

    def overflowed(self, norms: Sequence[float], *, of: Collection[int]) -> list[int]:
        """Those of variants whose gradient overflowed fp16: they miss their update, and their loss scale is halved."""
        if self.scaling is None:
            return []
        return [v for v in of if not math.isfinite(norms[v]) and self.scaling.overflowed(v)]

    @torch.no_grad()
    def step(
        self, rates: Sequence[Rates], norms: Tensor, *, losses: Tensor | None = None, stopped: Collection[int]
    ) -> dict[int, str]:
        """One update of every variant that is not in ``stopped`` and whose norm, and loss (V,), are finite.

        A device is only told what to do; what came of it is read by `settle`. Foreign optimizers work on the processor:
        they wait for the device. Then the gradients are still there: `clear` them.
        Returns the variants, by their place, whose foreign optimizer gave weights that are not finite, and which
        tensor; they keep the weights they had. Raises TrainError where one cannot take a step.
        """
        sound = norms.isfinite() if losses is None else norms.isfinite() & losses.isfinite()
        broken = {}
        for v, optimizer in self.foreign.items():
            if v not in stopped and bool(sound[v]):
                before = self.lora.params.detach()[v].clone()
                clip = rates[v].clipping(norms[v])
                optimizer.step(rates[v], 1.0 if clip is None else float(clip))
                if not finite(self.lora, v):
                    broken[v] = broken_tensor(self.lora, v)
                    self.lora.params.detach()[v].copy_(before)
        self.adamw.update(rates, norms, stopped={*stopped, *self.foreign}, held=(~sound).float())
        for v, variant in enumerate(self.variants):
            if v in stopped or v in broken:
                continue
            if variant.scale_weight_norms is not None:
                self._hold_norms(v, variant.scale_weight_norms)
            if variant.ema is not None and self.average is not None:
                # an update that is held back counts too: the average goes on towards the weights that stayed
                # warm-up: early averages would else be of the first weights for 1/(1 - decay) steps
                decay = min(variant.ema, self.steps / (9 + self.steps))
                self.average[v].lerp_(self.lora.params.detach()[v], 1 - decay)
        return broken

    def settle(self, losses: Sequence[float], norms: Sequence[float], *, stopped: Collection[int]) -> list[int]:
        """Count what came of a step of these losses and norms; returns the variants whose gradient overflowed fp16."""
        running = [v for v, loss in enumerate(losses) if v not in stopped and math.isfinite(loss)]
        missing = self.overflowed(norms, of=running)
        for v in running:
            if v in missing:
                self.adamw.missed[v] += 1
            elif self.scaling is not None and math.isfinite(norms[v]):
                self.scaling.updated(v)
        return missing

    def clear(self) -> None:
        """Make the gradients zero again."""
        self.lora.clear_gradients()

    def _hold_norms(self, v: int, largest: float) -> None:
        """kohya's max-norm: where ‖ΔW‖ of a module is larger, down and up shrink by the same factor."""
        parts = self.lora.parts(v)
        for key, (down, up) in self.lora.rows(self.lora.params.detach(), v).items():
            norm = product_norm(down, up) * parts[key].scale
            factor = (largest / norm.clamp(min=largest)).sqrt().float()  # 1 where it is not larger
            down.mul_(factor)
            up.mul_(factor)
        if v in self.foreign:
            self.foreign[v].load_weights()

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """Inside, the flat buffer holds the weights to validate and save; then those in training, bit for bit."""
        params = self.lora.params.detach()
        others = [v for v, variant in enumerate(self.variants) if variant.ema is not None]
        modes = [v for v, optimizer in self.foreign.items() if optimizer.has_modes]
        kept = {v: params[v].clone() for v in {*others, *modes}}
        for v in modes:
            self.foreign[v].set_mode("eval")
        for v in others:
            if self.average is not None:
                params[v].copy_(self.average[v])
        try:
            yield
        finally:
            for v in modes:
                self.foreign[v].set_mode("train")
            for v, weights in kept.items():
                params[v].copy_(weights)
                if v in self.foreign:
                    self.foreign[v].load_weights()

    def buffers(self, v: int) -> dict[str, Tensor]:
        """The (V, P) buffers that a state of the variant at place ``v`` needs, by name."""
        found = {"params": self.lora.params.detach()}
        if v not in self.foreign:
            found |= {"first": self.adamw.first, "second": self.adamw.second}
        if self.variants[v].ema is not None and self.average is not None:
            found["ema"] = self.average
        return found

    def extra(self, v: int) -> tuple[dict[str, Tensor], str]:
        """What a foreign optimizer remembers besides: tensors by name, and text; nothing for ours."""
        return self.foreign[v].state() if v in self.foreign else ({}, "")

    def scale(self, v: int) -> str:
        """The loss scale of the variant at place ``v`` and the updates it missed, as a state keeps them; else empty."""
        return "" if self.scaling is None else f"{self.scaling.text(v)} {self.adamw.missed[v]}"

    def load_scale(self, v: int, text: str) -> None:
        """Go on as `scale` said. Raises TrainError where it said nothing of the kind."""
        if self.scaling is not None:
            scale, _, missed = text.rpartition(" ")
            self.scaling.load(v, scale)
            self.adamw.missed[v] = int(missed)

    def load_extra(self, v: int, tensors: dict[str, Tensor], text: str, *, steps: int) -> None:
        """Go on as the variant at place ``v`` was at ``steps``, its buffers being filled already."""
        self.adamw.steps = steps
        if v in self.foreign:
            try:
                self.foreign[v].load_state(tensors, text)
            except (ValueError, TypeError, AttributeError) as error:
                raise TrainError(f"the optimizer's state does not read back ({error})") from error
