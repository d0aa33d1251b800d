"""Weights from a .safetensors file into a network: each once, straight to where and as what it computes.

A network is built on the meta device, where it costs nothing, and its weights are read one by one; so the most that
is in memory is the network and one weight. The file is read, not mapped: a map's pages count as the process's memory
too, lie unaligned, and hold the file open (Windows) or fault when it is cut (elsewhere).
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vez.errors import BaseModelError
from vez.nets.coded import Coded, code

_HEADER_LIMIT = 100 * 2**20  # bytes, safetensors' own limit
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
Source = Callable[[], Tensor]
"""Reads one weight."""
_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file: its format's name, its shape, its first byte and the one behind its last."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class TensorFile:
    """A .safetensors file whose header was read and checked."""

    path: Path
    entries: dict[str, Entry]
    metadata: dict[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its tensors."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def get(self, name: str) -> Tensor:
        """A tensor, on the CPU, in the file's own format. Raises BaseModelError where it is cut short or no weight."""
        entry = self.entries[name]
        if entry.dtype not in _DTYPES:
            raise BaseModelError(f"{self.path} has {name} as {entry.dtype[:20]}, which is no format of weights")
        found = torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
        if not found.numel():
            return found
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(entry.start)
                into = memoryview(found.view(-1).view(torch.uint8).numpy().data)
                while into:
                    count = file.readinto(into)
                    if not count:
                        raise OSError("it is cut short")
                    into = into[count:]
        except OSError as error:
            raise BaseModelError(f"{self.path} cannot be read ({error}); copy it again") from error
        return found


def open_file(path: Path) -> TensorFile:
    """Read a file's header; its weights are left. Raises BaseModelError where it is none, damaged or cut short."""
    try:
        with path.open("rb") as file:
            length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
            if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
                raise ValueError("it is no safetensors file, or cut short")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        entries = {str(name): _entry(entry, 8 + length, size) for name, entry in header.items()}
        return TensorFile(path, entries, {str(key): str(value) for key, value in metadata.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseModelError(f"{path} cannot be loaded ({error}); copy it again") from error


def _entry(entry: Mapping[str, Any], data: int, size: int) -> Entry:
    shape = tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    dtype = entry["dtype"]
    if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)) or not isinstance(dtype, str):
        raise ValueError("its header is damaged")
    width = _DTYPES[dtype].itemsize * math.prod(shape) if dtype in _DTYPES else stop - start
    if stop - start != width or data + stop > size:
        raise ValueError("it is damaged or cut short")
    return Entry(dtype, shape, data + start, data + stop)


def assemble(
    make: Callable[[], _Network],
    sources: Mapping[str, Source],
    *,
    dtype: torch.dtype,
    device: torch.device,
    what: str,
    again: str,
    complete: bool = False,
    quantize: bool = False,
) -> _Network:
    """A network with these weights, frozen; none is made up. Raises BaseModelError.

    Args:
        make: builds it; called on the meta device.
        sources: for each of its weights what reads it, by its name in the network.
        dtype: what it computes in.
        device: where it computes.
        what: what errors call the network.
        again: what errors end with: what to do about it.
        complete: whether it is an error, too, if weights are left over.
        quantize: whether the weights of its blocks are kept in eight bits (`vez.nets.coded`), each once it is read.
    """
    with torch.device("meta"):
        network = make()
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    odd, verb = [name for name in wanted if name not in sources], "lacks"
    if complete and not odd:
        odd, verb = [name for name in sources if name not in wanted], "has beyond its build"
    if odd:
        raise BaseModelError(f"{what} {verb} {odd[0]!r} and {len(odd) - 1} more weights; {again}")
    if quantize:
        code(network)
    for name, shape in wanted.items():
        value = sources[name]()
        if tuple(value.shape) != shape:
            raise BaseModelError(
                f"{what} cannot be loaded: {name} has the shape {tuple(value.shape)}, not {shape}; it is of a kind "
                "that vez does not know"
            )
        parent, _, leaf = name.rpartition(".")
        weight = value.to(device=device, dtype=dtype).contiguous()
        module = network.get_submodule(parent)
        if isinstance(module, Coded) and leaf == "weight":
            module.take(weight)
        else:
            module.register_parameter(leaf, nn.Parameter(weight, requires_grad=False))
    return network.eval()
