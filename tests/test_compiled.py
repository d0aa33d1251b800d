"""Compiled norms and gates: the same numbers, one function for each shape and no more than so many; and no compiler."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vez.base import Base, compute
from vez.bench.step import random_batch
from vez.bench.work import Workload, work_of
from vez.config import Checkpointing, Config, Sampling, Variant, load
from vez.dataset import Dataset
from vez.denoise import variant_losses
from vez.errors import ConfigError
from vez.events import Note, Saved, Step
from vez.foresight import check_room, plan, sizes
from vez.kohya_config.carry import carry
from vez.lora import LoraSpec, attach
from vez.nets.kernels import regions
from vez.nets.kernels.norms import group_norm, group_norm_back
from vez.plan import rate_key
from vez.preflight import preflight
from vez.train import train

VARIANTS = {"a": Variant(dataset="v1", batch=2, rank=4, dropout=0.2), "b": Variant(dataset="v1", batch=2, rank=2)}
CPU = torch.device("cpu")


STUDY = """
[project]
base = "tiny"
trigger = "nosnjaoutfit"
noun = "folk costume"
describes = "traditional Serbian folk costume"
[dataset.v1]
images = "images"
held_out = 0
[study.one]
steps = 10
compile = COMPILE
variant.a = { dataset = "v1" }
"""


def config(folder: Path, *, compile: bool) -> Config:
    """A study of one variant over two pictures."""
    for name in ("a", "b"):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / f"{name}.png").write_bytes(b"not looked into")
    (folder / "vez.toml").write_text(STUDY.replace("COMPILE", str(compile).lower()), encoding="utf-8")
    return load(folder / "vez.toml")


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing compiled before; and what torch knows of it is forgotten."""
    monkeypatch.setattr(regions, "_state", regions._Compiled())
    yield
    torch.compiler.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """All regions go through PyTorch's compiler but for its last part, which needs g++ and takes seconds for each."""
    monkeypatch.setattr(compute, "compiled", partial(regions.compiled, backend="aot_eager", every=True))


def gradients(base: Base, *, compile: bool, checkpointing: Checkpointing = "none") -> tuple[Tensor, Tensor]:
    """Losses and gradients of one step of two variants whose ups are not zero."""
    lora = attach(base, [LoraSpec(4, 4), LoraSpec(2, 1)], seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        lora.params.add_(torch.randn(lora.params.shape, generator=generator), alpha=0.02)
    batch = random_batch(base, Workload(base="tiny", size=64, batch=2, ranks=(4, 2)))
    batch = batch.__class__(**(vars(batch) | {"tokens": batch.tokens % 300 if batch.tokens is not None else None}))
    try:
        with compute.computing(base, torch.float32, pixels=64, checkpointing=checkpointing, compile=compile):
            losses = variant_losses(base, batch, variants=2)
            losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach(), lora.grads.clone()
    finally:
        lora.detach()


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("checkpointing", ["none", "selective", "whole"])
def test_losses_and_gradients_are_the_same(random_base: Base, checkpointing: Checkpointing) -> None:
    plain = gradients(random_base, compile=False)
    assert regions.so_far()[0] == 0
    found = gradients(random_base, compile=True, checkpointing=checkpointing)
    count = regions.so_far()[0]
    assert {key[0].strip("_") for key in regions._state.made} == {
        *("active", "active_back", "group_norm", "group_norm_back", "layer_norm", "layer_norm_back")
    }
    for one, other in zip(plain, found, strict=True):
        assert float((one - other).norm() / one.norm()) < 1e-5
    gradients(random_base, compile=True, checkpointing=checkpointing)
    assert regions.so_far()[0] == count, "a second step compiles nothing"


@pytest.mark.slow
def test_losses_and_gradients_are_the_same_by_g_plus_plus(
    random_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's whole compiler, every region of it."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compute, "compiled", partial(regions.compiled, every=True))
    plain, found = (gradients(random_base, compile=how) for how in (False, True))
    assert regions.so_far()[0] > 10
    for one, other in zip(plain, found, strict=True):
        assert float((one - other).norm() / one.norm()) < 1e-5
    assert any(tmp_path.rglob("*.so")), "kept for the next run"


@pytest.mark.usefixtures("traced")
def test_a_cut_run_ends_in_the_same_bits(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    def run(folder: Path, *, cut: int | None = None, compile: bool = True) -> bytes:
        into = {name: folder / name for name in VARIANTS}
        for event in train(random_base, tiny_dataset, VARIANTS, seed=1, steps=4, into=into, compile=compile,
                           checkpointing="selective", validate_every=2, checkpoint_seconds=0):  # fmt: skip
            if isinstance(event, Step) and event.step == cut:
                return b""
        return (folder / "a" / "lora.safetensors").read_bytes()

    whole = run(tmp_path / "whole")
    count = regions.so_far()[0]
    assert run(tmp_path / "cut", cut=3) == b""
    assert run(tmp_path / "cut") == whole
    assert regions.so_far()[0] == count, "the same shapes again"
    assert len(run(tmp_path / "plain", compile=False)) > 0
    again = {name: tmp_path / "plain" / name for name in VARIANTS}
    events = list(train(random_base, tiny_dataset, VARIANTS, seed=1, steps=4, into=again, compile=True,
                        validate_every=2))  # fmt: skip
    assert any(isinstance(event, Saved) for event in events), "numbers differ in their last bits: it is another run"


@pytest.mark.usefixtures("traced")
def test_the_preflight_compiles_for_the_run_and_says_so(random_base: Base, tiny_dataset: Dataset) -> None:
    def told(*, compile: bool) -> list[str]:
        how = {"precision": "fp32", "sampling": Sampling(steps=2), "compile": compile}
        return [e.text for e in preflight(random_base, tiny_dataset, VARIANTS, **how) if isinstance(e, Note)]  # type: ignore[arg-type]

    said = told(compile=True)[-2]
    assert f"compiled {regions.so_far()[0]} norms and gates" in said
    assert "compiled 0 norms" in told(compile=True)[-2]
    assert not any("compiled" in text for text in told(compile=False))


def normed(side: int) -> Tensor:
    torch.manual_seed(side)
    norm = nn.GroupNorm(2, 8).requires_grad_(False)
    x = torch.randn(1, 8, side, side)
    with torch.no_grad():
        return group_norm_back(torch.ones_like(x), x, norm, gate=True) + group_norm(x, norm, gate=True)


def test_no_more_is_compiled_than_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shape after shape: what comes after the last one computes as it does without."""
    monkeypatch.setattr(regions, "MOST", 24)
    plain = [normed(side) for side in range(2, 18)]
    for backend in ("eager", "aot_eager"):
        with regions.compiled(CPU, backend=backend, every=True):
            found = [normed(side) for side in range(2, 18)]
        torch.testing.assert_close(found, plain)
        assert regions.so_far()[0] == 24


def test_a_cpu_compiles_what_gains_and_nothing_outside() -> None:
    with regions.compiled(CPU, backend="aot_eager"):
        normed(4)
        assert regions.so_far()[0] == 0, "its norms are faster as they are"
        with regions.uncompiled(), regions.compiled(CPU, backend="aot_eager", every=True), regions.uncompiled():
            normed(4)
    normed(4)
    assert regions.so_far()[0] == 0
    with regions.compiled(torch.device("meta"), backend="aot_eager"):
        normed(4)
    assert regions.so_far()[0] == 2, "of another kind of device all"


def test_what_cannot_be_compiled_is_one_sentence() -> None:
    def branching(x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x

    with (
        regions.compiled(CPU, backend="aot_eager", every=True),
        pytest.raises(ConfigError, match=r"compile = true: .*leave it out"),
    ):
        regions.region(branching)(torch.ones(2))


def test_no_compiler_is_said_before_anything(
    random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"compile = true needs a C\+\+ compiler, and there is no no-such-compiler"):
        check_room(config(tmp_path, compile=True), "one", device="cpu")
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler"):
        list(preflight(random_base, tiny_dataset, VARIANTS, precision="fp32", sampling=Sampling(), compile=True))
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="or leave compile out"):
        regions.check("cpu")


def test_a_gpu_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions, "find_spec", lambda name: None)
    regions.check("cpu")
    with pytest.raises(ConfigError, match="triton"):
        regions.check("cuda")


def test_what_is_compiled_is_kept_in_the_cache_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    with regions.compiled(CPU):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "vez" / "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    with regions.compiled(CPU):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"


def test_a_plan_says_it_and_its_rate_is_apart(tmp_path: Path) -> None:
    without, with_it = (config(tmp_path, compile=how) for how in (False, True))
    assert "compiled before the first step" in plan(with_it, "one", device="cpu").text()
    assert "compiled" not in plan(without, "one", device="cpu").text()
    keys = [rate_key(one, "one", ["a"], device="cpu") for one in (without, with_it)]
    assert keys[1] == f"{keys[0]} + compiled"


def test_vez_bench_measures_a_study_as_it_runs(tmp_path: Path) -> None:
    for how in (False, True):
        one = config(tmp_path, compile=how)
        made = plan(one, "one", device="cpu")
        assert work_of(one, "one", made.passes[0], sizes=sizes(one), device="cpu", steps=1).compile is how


def test_kohyas_torch_compile_is_carried() -> None:
    assert carry({"torch_compile": True}, near=Path("c.toml")).tables["study"]["compile"] is True
