"""What this machine has, what is missing, what is in the way: facts for a person, found without changing anything."""

import importlib.util
import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

import vez
from vez import config
from vez.demo import damaged_weights
from vez.errors import VezError
from vez.foresight import sizes
from vez.plan import Cost

CORE = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "numpy",
    "scipy",
    "Pillow",
    "pydantic",
)
GIB = 1024**3
HALF_SIDE = 512  # of the matrices that fp16 is tried with
NOT_HALF = 'leave precision at "fp32", or take "bf16"'
# GiB for Stable Diffusion 1.5: weights in fp32 and a batch's activations; weights, datasets and images on disk
MEMORY_WANTED, DISK_WANTED = 8, 10


class State(Enum):
    """How a fact is to be read."""

    FINE = "ok"
    OPTIONAL = "optional"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True)
class Fact:
    """One thing that was looked at: its name, what was found, how that is to be read, and what to do about it."""

    name: str
    value: str
    state: State = State.FINE
    advice: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether vez cannot work before this is mended."""
        return self.state is State.BROKEN


def examine(folder: Path) -> list[Fact]:
    """Every fact, for a project in ``folder``. Takes the seconds that importing torch takes."""
    return [
        Fact("vez", f"{vez.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"),
        *_packages(),
        _torchvision(installed=importlib.util.find_spec("torchvision") is not None),
        _device(),
        _half(),
        Fact("cores", f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}"),
        _enough(
            "memory",
            psutil.virtual_memory().available / GIB,
            MEMORY_WANTED,
            'close other programs, or work on the base "tiny"',
        ),
        _enough(
            "disk", shutil.disk_usage(folder).free / GIB, DISK_WANTED, "free some room; .vez/ may always be deleted"
        ),
        _demo(damaged_weights()),
        *_project(folder),
    ]


def _project(folder: Path) -> list[Fact]:
    """What the project in the folder is to be trained on; nothing where there is none."""
    if not (folder / "vez.toml").exists():
        return []
    try:
        project = config.load(folder / "vez.toml")
        base, cost = project.project.base, Cost(sizes(project))
        if cost.assumed:
            advice = "it is fetched, or looked for, when it is needed first"
            return [Fact("base", f"{base}: not on this machine, or a file that does not say", State.OPTIONAL, advice)]
        return [Fact("base", f"{base}: {cost.family.title}")]
    except VezError as error:
        return [Fact("project", str(error), State.BROKEN, "mend vez.toml, then ask again")]


def _packages() -> list[Fact]:
    facts = []
    for name in CORE:
        try:
            facts.append(Fact(name, version(name)))
        except PackageNotFoundError:
            facts.append(
                Fact(name, "not installed", State.BROKEN, "install vez again: pip install --force-reinstall vez")
            )
    return facts


def _torchvision(*, installed: bool) -> Fact:
    if not installed:
        return Fact("torchvision", "absent, as it should be")
    return Fact(
        "torchvision",
        "installed",
        State.WARNING,
        "vez does not need it; one that was not built for this torch keeps transformers and diffusers from importing "
        '("operator torchvision::nms does not exist"). If you see that: pip uninstall torchvision',
    )


def _device() -> Fact:
    from vez.device import choose, describe

    device = choose("auto")
    if device.type != "cpu":
        return Fact("device", describe(device))
    advice = 'enough for the base "tiny"; Stable Diffusion 1.5 wants a GPU'
    return Fact("device", describe(device), State.OPTIONAL, advice)


def _half() -> Fact:
    """Whether precision = "fp16" works here, and how fast it is: a product of matrices and a convolution, timed."""
    import torch

    from vez.device import choose

    device = choose("auto")

    def seconds(dtype: torch.dtype) -> float:
        table = torch.ones(HALF_SIDE, HALF_SIDE, device=device, dtype=dtype)
        picture = torch.ones(1, 64, 64, 64, device=device, dtype=dtype)
        kernel = torch.ones(64, 64, 3, 3, device=device, dtype=dtype)
        taken = []
        for _ in range(4):  # the first warms up
            begun = time.perf_counter()
            told = (table @ table).sum() + torch.nn.functional.conv2d(picture, kernel).sum()
            told.item()  # waits for the device
            taken.append(time.perf_counter() - begun)
        return min(taken[1:])

    try:
        times = seconds(torch.float32) / seconds(torch.float16)
    except RuntimeError as error:  # a device without kernels for it
        return Fact("fp16", f"does not work here ({str(error).splitlines()[0]})", State.OPTIONAL, NOT_HALF)
    value = f"works, {times:.1f} times as fast as fp32 on two small products"
    return Fact("fp16", value) if times > 1 else Fact("fp16", value, State.OPTIONAL, NOT_HALF)


def _enough(name: str, gib: float, wanted: int, advice: str) -> Fact:
    value = f"{gib:.1f} GiB free"
    return Fact(name, value) if gib >= wanted else Fact(name, value, State.WARNING, f"less than {wanted} GiB: {advice}")


def _demo(damaged: list[str]) -> Fact:
    if not damaged:
        return Fact("demo", "the embedded base is there and intact")
    more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    return Fact(
        "demo",
        f"missing or changed: {', '.join(damaged[:3])}{more}",
        State.BROKEN,
        f"install vez again for {sys.executable}",
    )
