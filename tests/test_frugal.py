"""What a large base does without on a processor; and that gradients are zeros again."""

import os
import platform
import subprocess
import sys

import pytest
import torch

import vez.base.compute as compute
import vez.base.frugal as frugal
import vez.lora
from vez.base import Base, computing
from vez.bench.step import random_batch
from vez.bench.work import Workload
from vez.denoise import variant_losses
from vez.lora import LoraSpec, attach
from vez.nets.kernels import blocks
from vez.pages import Zeros

WORK = Workload("tiny", 64, 2, (2, 3), "fp32", "cpu", 1)
ONE = Workload("tiny", 64, 2, (2,), "fp32", "cpu", 1)
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems keep such pages")


def _resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("shape", [(2, 3), (1, 5_000_001)])
def test_zeros_are_zeros_again(shape: tuple[int, int]) -> None:
    zeros = Zeros(shape, device=torch.device("cpu"))
    assert zeros.tensor.shape == shape and not zeros.tensor.any()
    view = zeros.tensor[:, 1:3]
    for _ in range(2):
        view.add_(1.0)
        assert zeros.tensor.sum() == view.numel()
        zeros.clear()
        assert not zeros.tensor.any() and not view.any()


@ON_LINUX
def test_cleared_zeros_take_no_memory() -> None:
    zeros = Zeros((1, 2**25), device=torch.device("cpu"))
    began = _resident()
    zeros.tensor.add_(1.0)
    full = _resident()
    zeros.clear()
    assert full - began > 120e6 and full - _resident() > 120e6


def _gradients(base: Base) -> tuple[torch.Tensor, torch.Tensor]:
    lora = attach(base, [LoraSpec(2, 2), LoraSpec(3, 3)], seed=0)
    try:
        lora.params.detach().add_(0.01)
        losses = variant_losses(base, random_batch(base, WORK), variants=2)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach(), lora.grads.clone()
    finally:
        lora.detach()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_made_again_changes_no_bit(
    random_base: Base, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    with computing(random_base, dtype, pixels=64):
        expected = _gradients(random_base)
        monkeypatch.setattr(blocks, "_MANY", 1)
        monkeypatch.setattr(vez.lora, "_LARGE", 1)
        found = _gradients(random_base)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_less_is_kept_of_many_tokens(random_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        sizes = {}

        def pack(x: torch.Tensor) -> torch.Tensor:
            sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        lora = attach(random_base, [LoraSpec(2, 2)], seed=0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            losses = variant_losses(random_base, random_batch(random_base, ONE), variants=1)
        lora.detach()
        return sum(sizes.values()) + 0 * len(losses)

    with computing(random_base, torch.float32, pixels=64):
        before = kept()
        monkeypatch.setattr(blocks, "_MANY", 1)
        assert kept() < before


def test_a_large_base_alone_keeps_few_primitives(random_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "")  # so that it is put back
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    with computing(random_base, torch.float32, pixels=64):
        assert "LRU_CACHE_CAPACITY" not in os.environ
    monkeypatch.setattr(frugal, "LARGE", 1)
    with computing(random_base, torch.float32, pixels=64):
        assert os.environ["LRU_CACHE_CAPACITY"] == "1"
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "1024")
    with computing(random_base, torch.float32, pixels=64):
        assert os.environ["LRU_CACHE_CAPACITY"] == "1024"


def test_a_small_base_alone_keeps_what_is_freed(random_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr(compute, "keep_freed", lambda: called.append(True))
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "1")  # so that it is put back
    for largest, calls in ((1, 0), (frugal.LARGE, 1)):
        monkeypatch.setattr(frugal, "LARGE", largest)
        with computing(random_base, torch.float32, pixels=64):
            assert len(called) == calls


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's allocator")
@pytest.mark.parametrize(
    ("set_by_hand", "kept"),
    [
        ({}, True),
        ({"MALLOC_MMAP_THRESHOLD_": "65536"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=65536"}, False),
    ],
)
def test_beside_a_small_base_what_is_freed_stays_for_the_next_step(set_by_hand: dict[str, str], kept: bool) -> None:
    faults = "import resource; faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt"
    fill = "[bytearray(16 << 20) for _ in range(4)]"
    program = f"from vez.base.frugal import keep_freed; {faults}; keep_freed(); {fill}; before = faults(); {fill}"
    found = subprocess.run(
        [sys.executable, "-c", f"{program}; print(faults() - before)"],
        env={**os.environ, **set_by_hand},
        capture_output=True,
        text=True,
        check=True,
    )
    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert (int(found.stdout) < pages / 4) == kept
