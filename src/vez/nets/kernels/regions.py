"""Norms and gates compiled by PyTorch (`torch.compile`): one kernel in place of several that each go through memory.

A region is a pure function of tensors in a node whose gradient is written by hand, and has none of its own. So what is
kept for the backward pass, LoRAs and checkpointing do not change with it. Blocks of one kind share what was compiled;
each shape and format has its own, with nothing dynamic in it, up to `MOST`: what comes after computes as it does
without.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from types import FunctionType
from typing import Any, Final, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from vez.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

MOST: Final = 256
ON_CPU: Final = frozenset({"active", "active_back"})
"""What is compiled on a CPU: gates took about as long as without, norms longer (bench/results)."""
_CACHE: Final = "TORCHINDUCTOR_CACHE_DIR"


class Norm(NamedTuple):
    """A norm's weights and settings, for a compiler to see that all norms of a kind are alike."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float
    num_groups: int = 0
    normalized_shape: tuple[int, ...] = ()


@dataclass
class _Compiled:
    """What this process has compiled, by all that it depends on; and which regions are on."""

    made: dict[tuple[Any, ...], Callable[..., Any]] = field(default_factory=dict)
    regions: frozenset[str] | None = frozenset()
    """Names; None: all of them."""
    backend: str = "inductor"
    seconds: float = 0.0


_state = _Compiled()  # of the process: backward passes on a GPU run in threads of their own


def region(function: F) -> F:
    """Have a function of tensors, norms and constants be compiled inside `compiled`."""

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        if _state.regions is None or function.__name__.strip("_") in _state.regions:
            return _run(function, arguments, options)
        return function(*arguments, **options)

    return cast(F, run)


@contextmanager
def compiled(device: torch.device, *, backend: str = "inductor", every: bool = False) -> Iterator[None]:
    """Inside, regions are compiled: those that do not lose by it on this kind of processor, or ``every`` one.

    What is compiled stays on the disk for the next run. Raises ConfigError where there is no compiler.
    """
    if backend == "inductor":
        check(device.type)
        os.environ.setdefault(_CACHE, str(_user_cache() / "vez" / "compiled"))
    before = _state.regions, _state.backend
    _state.regions, _state.backend = (ON_CPU if device.type == "cpu" and not every else None), backend
    try:
        yield
    finally:
        _state.regions, _state.backend = before


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside, nothing is compiled: for shapes that come up now and then and are not worth it."""
    before = _state.regions
    _state.regions = frozenset()
    try:
        yield
    finally:
        _state.regions = before


def so_far() -> tuple[int, float]:
    """Functions that this process has compiled, and the seconds of their first calls."""
    return len(_state.made), _state.seconds


def check(device: str) -> None:
    """Raise ConfigError where this machine cannot compile for a kind of device."""
    own = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", own)
    if shutil.which(compiler) is None:
        raise ConfigError(
            f"compile = true needs a C++ compiler, and there is no {compiler} on this machine; install it, name "
            "another in the environment variable CXX, or leave compile out"
        )
    if device == "cuda" and find_spec("triton") is None:
        raise ConfigError("compile = true needs the package triton on this GPU; install it, or leave compile out")


def _run(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    bare = tuple(_bare(one) for one in arguments)
    told = (_told(one) for one in bare)
    key = (function.__name__, _state.backend, *told, *sorted(options.items()))
    made = _state.made.get(key)
    if made is not None:
        return made(*bare, **options)
    if len(_state.made) >= MOST:
        return function(*arguments, **options)
    began = perf_counter()
    made = _state.made[key] = _made(function, len(_state.made))
    try:
        return made(*bare, **options)
    except torch._dynamo.exc.TorchDynamoException as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(f"compile = true: a part of the base cannot be compiled ({first}); leave it out") from error
    finally:
        _state.seconds += perf_counter() - began


def _made(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The function compiled, as a function of its own: torch counts what it compiles of one, and stops at a few."""
    plain = cast(FunctionType, function)
    own = FunctionType(
        plain.__code__.replace(co_name=f"{plain.__name__}_{number}"),
        plain.__globals__,
        argdefs=plain.__defaults__,
        closure=plain.__closure__,
    )
    own.__kwdefaults__ = plain.__kwdefaults__
    found: Callable[..., Any] = torch.compile(own, backend=_state.backend, dynamic=False, fullgraph=True)
    return found


def _bare(one: Any) -> Any:
    """An argument as it is compiled: a tensor without its past, a norm without its module, which differs each time."""
    if isinstance(one, Tensor):
        return one.detach()
    if isinstance(one, nn.GroupNorm):
        return Norm(one.weight, one.bias, one.eps, num_groups=one.num_groups)
    if isinstance(one, nn.LayerNorm):
        return Norm(one.weight, one.bias, one.eps, normalized_shape=tuple(one.normalized_shape))
    return one


def _told(one: Any) -> Any:
    """What a compiled function depends on of an argument."""
    if isinstance(one, Tensor):
        return one.shape, one.stride(), one.dtype, one.device
    return tuple(_told(part) for part in one) if isinstance(one, tuple) else one


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
