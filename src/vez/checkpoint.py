"""What a cut run goes on from: each variant's weights, optimizer and step, in its own run's folder.

``state-<step>.safetensors`` holds ``<buffer>.<part>/<module>`` tensors, fp32, without padding. Variants trained in one
pass keep one file each, a variant that stopped too; an older file goes only when every variant has the newer, so a kill
at any instant leaves a step that all of them have.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors

from vez.errors import TrainError
from vez.interop import to_bytes
from vez.learner import Learner
from vez.store import write_atomic

_NAME = re.compile(r"state-(\d+)\.safetensors")
_STOPPED = "stopped"  # in a state's header: why its variant learns no more
_OPTIMIZER = "optimizer"  # there too: what a foreign optimizer remembers besides tensors
_SCALE = "scale"  # there too, of a run in fp16: its loss scale


def save(learner: Learner, folders: Sequence[Path], stopped: Mapping[int, str] | None = None) -> None:
    """Write every variant's state at the optimizer's step into its folder, then let go of the older ones.

    ``stopped`` says of variants, by their place, why they learn no more.
    """
    for v, folder in enumerate(folders):
        tensors, text = learner.extra(v)
        tensors |= {
            f"{buffer}.{part}/{key}": tensor
            for buffer, values in learner.buffers(v).items()
            for key, pair in learner.lora.rows(values, v).items()
            for part, tensor in zip(("down", "up"), pair, strict=True)
        }
        header = {_STOPPED: (stopped or {}).get(v, ""), _OPTIMIZER: text, _SCALE: learner.scale(v)}
        write_atomic(_file(folder, learner.steps), to_bytes(tensors, header))
    for folder in folders:
        for step in _steps(folder) - {learner.steps}:
            _file(folder, step).unlink()


def latest(folders: Sequence[Path]) -> int:
    """The newest step that every folder has a state of; 0 where there is none."""
    return max(set.intersection(*(_steps(folder) | {0} for folder in folders)))


def restore(learner: Learner, folders: Sequence[Path], *, step: int) -> None:
    """Put all back as `save` found it. Raises TrainError for a file that is no such state."""
    for v, folder in enumerate(folders):
        file = _file(folder, step)
        try:
            tensors = load_tensors(file.read_bytes())
            with torch.no_grad():
                for buffer, values in learner.buffers(v).items():
                    for key, pair in learner.lora.rows(values, v).items():
                        for part, tensor in zip(("down", "up"), pair, strict=True):
                            tensor.copy_(tensors[f"{buffer}.{part}/{key}"])
            header = _header(file)
            learner.load_extra(v, tensors, header.get(_OPTIMIZER, ""), steps=step)
            learner.load_scale(v, header.get(_SCALE, ""))
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError, TrainError) as error:
            raise TrainError(_unreadable(file, error)) from error


def stopped(folders: Sequence[Path], *, step: int) -> dict[int, str]:
    """Of the variants that had stopped at a state, why, by their place. Raises TrainError as `restore`."""
    reasons = {}
    for v, folder in enumerate(folders):
        file = _file(folder, step)
        try:
            reasons[v] = _header(file).get(_STOPPED, "")
        except (OSError, SafetensorError) as error:
            raise TrainError(_unreadable(file, error)) from error
    return {v: reason for v, reason in reasons.items() if reason}


def _header(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata() or {})


def _unreadable(file: Path, error: Exception) -> str:
    return f"{file} cannot be gone on from ({error}); delete it to start the run again"


def clear(folders: Sequence[Path]) -> None:
    """Delete all states: the run is finished, and its LoRA says all."""
    for folder in folders:
        for step in _steps(folder):
            _file(folder, step).unlink()


def _file(folder: Path, step: int) -> Path:
    return folder / f"state-{step:08d}.safetensors"


def _steps(folder: Path) -> set[int]:
    return {int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))}
