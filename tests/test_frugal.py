"""What is given back to the system while a large base trains; and that gradients are zeros again after it."""

import os
import sys

import pytest
import torch

import vez.base.frugal as frugal
from vez.base import Base, computing
from vez.bench.step import random_batch
from vez.bench.work import Workload
from vez.denoise import variant_losses
from vez.lora import LoraSpec, attach
from vez.pages import Zeros

WORK = Workload("tiny", 64, 1, (2,), "fp32", "cpu", 1)
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
    lora = attach(base, [LoraSpec(2, 2)], seed=0)
    try:
        losses = variant_losses(base, random_batch(base, WORK), variants=1)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach(), lora.grads.clone()
    finally:
        lora.detach()


def test_memory_is_given_back_in_the_backward_pass_of_a_large_base_alone(
    random_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(frugal, "_trim", lambda: lambda: asked.append(1))
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    with computing(random_base, torch.float32, pixels=64):
        expected = _gradients(random_base)
    assert not asked and "LRU_CACHE_CAPACITY" not in os.environ
    monkeypatch.setattr(frugal, "LARGE", 1)
    with computing(random_base, torch.float32, pixels=64):
        with torch.no_grad():
            variant_losses(random_base, random_batch(random_base, WORK), variants=1)
        assert not asked
        found = _gradients(random_base)
    assert len(asked) == 2 and os.environ["LRU_CACHE_CAPACITY"] == "1"
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "1024")
    with computing(random_base, torch.float32, pixels=64):
        assert os.environ["LRU_CACHE_CAPACITY"] == "1024"
    _gradients(random_base)
    assert len(asked) == 2


@ON_LINUX
def test_the_c_library_is_asked() -> None:
    trim = frugal._trim()
    if trim is None:
        pytest.skip("another C library")
    many = [torch.ones(20_000) for _ in range(2_000)]  # 160 MB in pieces that malloc keeps
    many = many[-1:]
    held = _resident()
    trim()
    assert many and held - _resident() > 40e6
