"""Where torch computes: the one question about the machine that only torch can answer."""

import torch
from torch import Tensor

from vez.errors import TrainError


def choose(name: str = "auto") -> torch.device:
    """The device for "auto" (cuda, else mps, else cpu) or for torch's name of one. Raises TrainError if not here."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainError(f"there is no kind of device {name!r}; take auto, cpu, cuda, cuda:<number> or mps") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(
        device.type, 0
    )
    if (device.index or 0) >= count:
        raise TrainError(f"the device {name!r} is not on this machine as torch sees it; `vez doctor` says what is")
    return device


def carried(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on ``device``; the processor's own goes to a GPU from pinned memory, so that nobody waits."""
    if tensor.device.type != "cpu" or device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def describe(device: torch.device) -> str:
    """The device in words for a person: kind, model, memory or threads."""
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / 1024**3
        return f"{device}: {torch.cuda.get_device_name(device)}, {memory:.0f} GiB"
    return f"{device}, {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
