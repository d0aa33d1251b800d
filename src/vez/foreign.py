"""Optimizers that are not ours: any torch.optim.Optimizer by name, run over one variant's part of the flat buffers.

Each module's down and up is a parameter of its own, a view of the flat buffer where that is whole (ranks of variants
side by side are padded; a view with gaps is copied in and out). The state is kept as tensors and plain numbers; what
is none of these is refused, as it would need pickle.
"""

import importlib
import inspect
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vez.errors import ConfigError, MissingExtra, TrainError
from vez.lora import Kind, LoraSet
from vez.optim import Rates

SHORT = {  # names that vez.toml may say instead of a class: package and class
    "adamw8bit": ("bitsandbytes.optim", "AdamW8bit"),
    "prodigy": ("prodigyopt", "Prodigy"),
    "schedulefree": ("schedulefree", "AdamWScheduleFree"),
}


@dataclass
class _Leaf:
    """One parameter: what the optimizer holds, and where it lies in the flat buffers."""

    kind: Kind
    """What it shares a learning rate with."""
    parameter: torch.nn.Parameter
    weight: Tensor
    grad: Tensor

    @property
    def is_view(self) -> bool:
        return self.parameter.data_ptr() == self.weight.data_ptr()


class Foreign:
    """A foreign optimizer over the variant at one place of a `LoraSet`."""

    def __init__(self, lora: LoraSet, variant: int, *, name: str, args: Mapping[str, Any], rates: Rates) -> None:
        """Make it. Raises MissingExtra, or ConfigError where the name is no optimizer or the arguments do not fit."""
        self.name = name
        weights, grads = lora.rows(lora.params.detach(), variant), lora.rows(lora.grads, variant)
        self.leaves = [
            _Leaf(
                segment.kind(variant, up=bool(up)), torch.nn.Parameter(pair[up].contiguous()), pair[up], grads[key][up]
            )
            for segment in lora.segments
            if (pair := weights.get(key := segment.key)) is not None
            for up in (0, 1)
        ]
        kinds = dict.fromkeys(leaf.kind for leaf in self.leaves)
        groups = [
            {"params": [leaf.parameter for leaf in self.leaves if leaf.kind == kind], "lr": rates.of(kind)}
            for kind in kinds
        ]
        self.kinds = list(kinds)
        self.optimizer = _make(name, groups, args, weight_decay=rates.weight_decay)
        self.set_mode("train")

    @torch.no_grad()
    def step(self, rates: Rates, clip: float) -> None:
        """One update with gradients times ``clip``. Raises TrainError where the optimizer cannot take it."""
        for leaf in self.leaves:
            if not leaf.is_view:
                leaf.parameter.copy_(leaf.weight)
            leaf.parameter.grad = leaf.grad.mul_(clip).contiguous() if clip < 1 else leaf.grad.contiguous()
        for group, kind in zip(self.optimizer.param_groups, self.kinds, strict=True):
            group["lr"] = rates.of(kind)
        try:
            self.optimizer.step()
        except (TypeError, RuntimeError, ValueError) as error:
            raise TrainError(f"the optimizer {self.name} cannot take a step: {error}") from error
        self._copy_out()

    @property
    def has_modes(self) -> bool:
        """Whether its weights in training are not those to use, as with the schedule-free ones."""
        return callable(getattr(self.optimizer, "eval", None)) and callable(getattr(self.optimizer, "train", None))

    @torch.no_grad()
    def set_mode(self, mode: str) -> None:
        """To "train", or to "eval" for weights that are validated and saved."""
        if self.has_modes:
            getattr(self.optimizer, mode)()
            self._copy_out()

    def load_weights(self) -> None:
        """Take over weights that were put into the flat buffer."""
        with torch.no_grad():
            for leaf in self.leaves:
                if not leaf.is_view:
                    leaf.parameter.copy_(leaf.weight)

    def _copy_out(self) -> None:
        for leaf in self.leaves:
            if not leaf.is_view:
                leaf.weight.copy_(leaf.parameter.detach())
        self.leaves[0].weight[:0].zero_()  # nothing, but it counts: a Parameter's own writes are not the buffer's

    def state(self) -> tuple[dict[str, Tensor], str]:
        """All that it remembers: tensors by name, and JSON of everything else, which names them."""
        tensors: dict[str, Tensor] = {}
        rows = [self.optimizer.state.get(leaf.parameter, {}) for leaf in self.leaves]
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        plain = {"rows": _plain(rows, "optimizer.rows", tensors), "groups": _plain(groups, "optimizer.groups", tensors)}
        return tensors, json.dumps(plain)

    def load_state(self, tensors: Mapping[str, Tensor], text: str) -> None:
        """Put back what `state` gave. Raises KeyError or ValueError for what is no such state."""
        plain = json.loads(text)
        rows = _whole(plain["rows"], tensors, self.leaves[0].parameter.device)
        groups = _whole(plain["groups"], tensors, self.leaves[0].parameter.device)
        for leaf, row in zip(self.leaves, rows, strict=True):
            if row:
                self.optimizer.state[leaf.parameter] = row
        for group, values in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(values)
        self.load_weights()


def check(name: str, args: Mapping[str, Any], *, weight_decay: float) -> None:
    """Make the optimizer over a single number and forget it. Raises MissingExtra or ConfigError, as `Foreign` does."""
    _make(name, [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1e-4}], args, weight_decay=weight_decay)


def _make(
    name: str, groups: Sequence[dict[str, Any]], args: Mapping[str, Any], *, weight_decay: float
) -> torch.optim.Optimizer:
    module, _, cls = name.rpartition(".")
    module, cls = SHORT.get(name, (module, cls))
    try:
        kind = getattr(importlib.import_module(module), cls)
    except ModuleNotFoundError as error:
        if name in SHORT:
            raise MissingExtra(
                f'optimizer = "{name}" needs {module.split(".")[0]}: pip install "vez[optim]"'
            ) from error
        raise ConfigError(f"optimizer = {name!r}: there is no module {error.name!r}; install what brings it") from error
    except (AttributeError, ImportError, ValueError) as error:
        raise ConfigError(f"optimizer = {name!r} cannot be imported ({error}); give module.Class") from error
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ConfigError(f"optimizer = {name!r} is not a torch.optim.Optimizer")
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
    if "weight_decay" in inspect.signature(kind).parameters:
        given["weight_decay"] = weight_decay
    try:
        with redirect_stdout(io.StringIO()):  # Prodigy greets
            made: torch.optim.Optimizer = kind(list(groups), **given)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"optimizer = {name!r} does not take these optimizer_args: {error}") from error
    return made


def _plain(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON; its tensors go into ``tensors`` and are named. Raises TrainError for what is neither."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach().clone()
        return {"tensor": name, "on_cpu": value.device.type == "cpu"}
    if isinstance(value, Mapping):
        return {"dict": {str(key): _plain(v, f"{name}.{key}", tensors) for key, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_plain(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TrainError(f"the optimizer remembers a {type(value).__name__} ({name}), which no state file can hold")


def _whole(value: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        tensor = tensors[value["tensor"]]
        return tensor.clone() if value["on_cpu"] else tensor.to(device)
    if "dict" in value:
        return {key: _whole(v, tensors, device) for key, v in value["dict"].items()}
    kind: type[list[Any] | tuple[Any, ...]] = list if "list" in value else tuple
    return kind(_whole(v, tensors, device) for v in value["list" if "list" in value else "tuple"])
