"""Weights from a file: each once, straight to where it computes; what is no such file is refused."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from vez.errors import BaseModelError
from vez.nets.weights import TensorFile, assemble, open_file

CPU = torch.device("cpu")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {
        "whole": torch.randn(3, 5, generator=generator),
        "half": torch.randn(4, 2, 3, 3, generator=generator).half(),
        "brain": torch.randn(7, generator=generator).bfloat16(),
        "double": torch.randn(2, generator=generator).double(),
        "eight": torch.randn(6, generator=generator).to(torch.float8_e4m3fn),
        "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "places": torch.arange(5),
    }
    save_file(tensors, tmp_path / "w.safetensors", metadata={"format": "pt", "said": "ž"})
    return tmp_path / "w.safetensors"


def test_tensors_are_what_safetensors_reads(file: Path) -> None:
    opened, theirs = open_file(file), load_file(file)
    assert opened.shapes == {name: tuple(value.shape) for name, value in theirs.items()}
    assert opened.metadata == {"format": "pt", "said": "ž"}
    for name, value in theirs.items():
        if name != "places":
            own = opened.get(name)
            assert own.dtype == value.dtype and torch.equal(own.float(), value.float())
    with pytest.raises(BaseModelError, match="places as I64, which is no format of weights"):
        opened.get("places")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80) | st.text(max_size=60).map(lambda text: text.encode()), st.booleans())
def test_any_bytes_are_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, framed: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data if framed else data)
    try:
        assert isinstance(open_file(path), TensorFile)
    except BaseModelError as error:
        assert "\n" not in str(error) and "cannot be loaded" in str(error)


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 16


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 15]},
        {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [True] * 4, "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": ["4"], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0]},
        {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]},
        {"shape": [4], "data_offsets": [0, 16]},
        [],
        None,
    ],
)
def test_a_header_that_lies_is_refused(entry: object, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(header(a={"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}))
    assert open_file(path).get("a").shape == (2, 2)
    path.write_bytes(header(a=entry))
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        open_file(path)


def test_a_file_that_is_cut_after_it_was_opened_is_named(file: Path) -> None:
    opened = open_file(file)
    with file.open("r+b") as cut:
        cut.truncate(opened.entries["whole"].start + 8)
    with pytest.raises(BaseModelError, match="cut short"):
        opened.get("whole")


def make(inputs: int = 3, outputs: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.Sequential(nn.Linear(outputs, 1, bias=False)))


def sources() -> dict[str, Callable[[], torch.Tensor]]:
    given = {"0.weight": torch.ones(2, 3).half(), "0.bias": torch.zeros(2), "1.0.weight": torch.ones(1, 2).bfloat16()}
    return {name: partial(torch.clone, value) for name, value in given.items()}


def assembled(found: dict[str, Callable[[], torch.Tensor]], **options: Any) -> nn.Sequential:
    return assemble(make, found, dtype=torch.bfloat16, device=CPU, what="it", again="copy it again", **options)


def test_a_network_is_frozen_and_of_one_format() -> None:
    network = assembled(sources())
    assert not network.training
    assert {(p.dtype, p.requires_grad, p.device.type) for p in network.parameters()} == {(torch.bfloat16, False, "cpu")}


def test_no_weight_is_made_up_and_none_need_be_left() -> None:
    lacking = sources()
    del lacking["0.bias"]
    with pytest.raises(BaseModelError, match=r"it lacks '0.bias' and 0 more weights; copy it again"):
        assembled(lacking)
    more = sources() | {"2.weight": partial(torch.zeros, 1)}
    assembled(more)
    with pytest.raises(BaseModelError, match=r"it has beyond its build '2.weight' and 0 more"):
        assembled(more, complete=True)
    other = sources() | {"0.weight": partial(torch.zeros, 2, 4)}
    with pytest.raises(BaseModelError, match=r"0.weight has the shape \(2, 4\), not \(2, 3\)"):
        assembled(other)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux")
@pytest.mark.parametrize("half", [False, True])
def test_the_peak_of_loading_is_the_network_and_one_weight(tmp_path: Path, half: bool) -> None:
    """400 MB of weights in one format, loaded in another, in a process of its own."""
    size, count = 5120, 4
    values = {
        f"{n}.weight": torch.zeros(size, size, dtype=torch.float16 if half else torch.float32) for n in range(count)
    }
    save_file(values, tmp_path / "w.safetensors")
    code = f"""
import torch
from functools import partial
from pathlib import Path
from torch import nn
from vez.nets.weights import assemble, open_file
def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) * 1024
before = peak()
file = open_file(Path({str(tmp_path / "w.safetensors")!r}))
made = assemble(lambda: nn.Sequential(*(nn.Linear({size}, {size}, bias=False) for _ in range({count}))),
                {{name: partial(file.get, name) for name in file.entries}},
                dtype=torch.float32, device=torch.device("cpu"), what="", again="")
print(peak() - before)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole, one = 4 * size * size * count, (2 if half else 0) * size * size
    assert int(said.stdout) <= whole + one + 24 * 2**20
