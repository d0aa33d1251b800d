"""`vez bench`: what it counts is right, what it measures is there, what it cannot measure is one sentence."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from vez import config, demo
from vez.base import computing
from vez.bench import Measured, Workload, measured, study_text, work_of
from vez.bench.counts import counted, matrix_rate
from vez.bench.step import main, measure, random_batch, trainer
from vez.bench.weights import random_base
from vez.bench.work import workload
from vez.cli import MISTAKE, app
from vez.errors import ConfigError, TrainError
from vez.interop import base_keys
from vez.plan import Pass
from vez.room import sizes_of
from vez.shape import LoraSpec, spec_of

SMALL = Workload(base="tiny", size=64, batch=1, ranks=(2,), dtype="fp32", device="cpu", steps=2)
CPU = torch.device("cpu")


def test_products_are_counted_as_two_flops_a_pair() -> None:
    a, b, c = torch.ones(3, 5), torch.ones(5, 7), torch.ones(2, 3, 7)
    assert counted(lambda: a @ b).flops == 2 * 3 * 5 * 7
    assert counted(lambda: c.baddbmm_(torch.ones(2, 3, 5), torch.ones(2, 5, 7))).flops == 2 * 2 * 3 * 5 * 7
    q = torch.ones(1, 2, 16, 8, requires_grad=True)
    attention = counted(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q)).flops
    assert attention == 2 * 2 * (2 * 16 * 16 * 8), "two products for each of two heads"


def test_views_are_no_operators() -> None:
    a = torch.ones(4, 6)
    assert counted(lambda: a.view(6, 4).t()[1:]).operators == 0
    assert counted(lambda: a.view(6, 4) + 1).operators == 1


def test_a_step_is_measured_and_counted_the_same_each_time() -> None:
    first, again = measure(SMALL), measure(SMALL)
    assert len(first.seconds) == 2
    assert 0 < first.share < 1
    assert first.samples_per_second == pytest.approx(1 / first.step_seconds)
    assert (first.flops, first.operators) == (again.flops, again.operators), (
        "counts do not depend on the machine's mood"
    )
    assert first.matrix_rate > 1e8
    assert first.peak_bytes > 2**27


def test_variants_side_by_side_multiply_the_work_and_not_the_operators() -> None:
    one, four = measure(SMALL), measure(Workload(**(vars(SMALL) | {"ranks": (2, 2, 2, 2)})))
    assert four.flops == pytest.approx(4 * one.flops, rel=0.05)
    assert four.operators < 2 * one.operators
    assert four.samples_per_second * four.step_seconds == pytest.approx(4)


def test_the_process_that_measures_is_another_one() -> None:
    """Its peak memory is its own, whatever this process holds."""
    held = torch.zeros(2**28)  # 1 GiB
    result = measured(SMALL)
    assert result.peak_bytes < held.numel() * 4
    assert isinstance(result, Measured)
    assert result.work == SMALL


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base": "sd9"}, "no shape 'sd9'.*tiny"),
        ({"dtype": "fp8"}, "dtype cannot be 'fp8'.*fp32, bf16 or fp16"),
        ({"size": 100}, "size cannot be 100; take a multiple of 64"),
        ({"size": 1 << 20}, "size cannot be"),
        ({"batch": 0}, "batch cannot be 0"),
        ({"ranks": (0,)}, "rank cannot be 0"),
        ({"steps": 0}, "steps cannot be 0"),
        ({"ranks": ()}, "number of variants cannot be 0"),
    ],
)
def test_a_workload_that_cannot_be_is_one_sentence(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Workload(**(vars(SMALL) | change)).check()  # type: ignore[arg-type]


def test_a_device_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    row = vars(SMALL) | {"device": "cuda:7"}
    assert main([json.dumps(row)]) == MISTAKE
    assert "'cuda:7' is not on this machine" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_child_says_is_what_is_raised() -> None:
    with pytest.raises(TrainError, match=r"could not be measured .*cuda:7"):
        measured(Workload(**(vars(SMALL) | {"device": "cuda:7"})))


@pytest.mark.parametrize(
    ("shape", "unet", "text", "modules"),
    [
        ("sd1", 859_520_964, (123_060_480,), 192 + 72),
        ("sd2", 865_910_724, (340_387_840,), 192 + 138),
        ("sdxl", 2_567_463_684, (123_060_480, 694_659_840), 722 + 72 + 192),
    ],
)
def test_random_bases_have_the_shapes_of_the_real_ones(
    shape: str, unet: int, text: tuple[int, ...], modules: int
) -> None:
    """On torch's meta device, which allocates nothing. Counts: the model cards' and kohya's."""
    base = random_base(shape, device=torch.device("meta"), dtype=torch.bfloat16)
    assert sum(p.numel() for p in base.unet.parameters()) == unet
    assert tuple(sum(p.numel() for p in e.parameters()) for e in base.text_encoders) == text
    assert len(base_keys(base)) == modules
    assert {p.dtype for p in base.unet.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_random_batches_are_the_same_again_and_differ_by_seed() -> None:
    base = random_base("tiny", device=CPU, dtype=torch.float32)
    work = Workload(base="tiny", size=128, batch=3, ranks=(2, 2))
    one, two, other = (random_batch(base, work, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.latents, two.latents)
    assert not torch.equal(one.latents, other.latents)
    assert one.latents.shape == (3, 4, 16, 16)
    assert one.tokens is not None
    assert one.tokens.shape == (6, 77)
    assert torch.equal(one.tokens[:3], one.tokens[3:]), "every variant sees the same captions"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_step_that_is_timed_learns(dtype: torch.dtype) -> None:
    base = random_base("tiny", device=CPU, dtype=dtype)
    with computing(base, dtype, pixels=64):
        step = trainer(base, [LoraSpec(4, 4)])
        batch = random_batch(base, Workload(base="tiny", size=64, batch=1, ranks=(4,)))
        losses = [step(batch)[0][0] for _ in range(6)]
    assert losses[-1] < losses[0]
    assert len(set(losses)) == 6, "each step sees what the one before it changed"


def test_the_matrix_rate_is_that_of_a_product() -> None:
    assert 1e8 < matrix_rate(CPU, torch.float32) < 1e16


def test_on_the_command_line() -> None:
    line = "bench --base tiny --size 64 --rank 2 --variants 2 --steps 1 --dtype fp32 --device cpu"
    told = CliRunner().invoke(app, line.split())
    assert told.exit_code == 0, told.output
    for word in ("tiny, 64 px, batch 1, 2 variants of rank 2, fp32", "ms/step", "samples/s", "GB at the peak",
                 "operators per step", "% of the machine's matrix rate"):  # fmt: skip
        assert word in told.output


PROJECT = """
[project]
base = "tiny"
trigger = "zolka"
noun = "costume"
describes = "folk costume"
[dataset.v1]
images = "images"
resolution = 64
held_out = 0
[study.s]
steps = 100
seeds = [0, 1]
[study.s.variant]
a = { dataset = "v1", batch = 2, rank = 2 }
b = { dataset = "v1", batch = 2, rank = 4 }
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(b"a name is all that a plan looks at")
    (tmp_path / "vez.toml").write_text(PROJECT)
    return tmp_path / "vez.toml"


@pytest.mark.slow
def test_how_long_a_study_takes(project: Path) -> None:
    told = CliRunner().invoke(app, ["bench", "-c", str(project), "--steps", "1", "--json", "--device", "cpu"])
    assert told.exit_code == 0, told.output
    (row,) = json.loads(told.output)
    (one,) = row["passes"]
    assert one["work"] | {"steps": 0} == {
        "base": "tiny", "size": 64, "batch": 2, "ranks": [2, 4], "dtype": "fp32", "device": "cpu", "steps": 0,
        "checkpointing": "none", "shapes": [], "compile": False, "quantize": "none",
    }  # fmt: skip
    assert row["training_seconds"] == pytest.approx(2 * 100 * one["step_seconds"])


SHAPED = """a = { dataset = "v1", batch = 2, rank = 2, conv_rank = 3, blocks = { mid = { rank = 0 } } }
b = { dataset = "v1", batch = 2, rank = 4, lr_text = 0 }
"""


def test_a_studys_step_has_the_shapes_of_its_variants(project: Path) -> None:
    one = Pass("v1", 8, 2, ("a", "b"), steps=600, seconds=None, peak_bytes=1e9)
    sizes = sizes_of(Path(demo.__file__).parent / "base")
    how: dict[str, Any] = {"sizes": sizes, "device": "cpu", "steps": 1}
    assert work_of(config.load(project), "s", one, **how).shapes == (), "a rank says all"
    project.write_text(PROJECT.split("a = {")[0] + SHAPED)
    loaded = config.load(project)
    work = work_of(loaded, "s", one, **how)
    assert work.specs == tuple(spec_of(loaded.study["s"].variant[name]) for name in ("a", "b"))
    assert workload(json.loads(json.dumps(asdict(work)))) == work, "it travels as JSON"
    assert "convolutions, blocks and networks of vez.toml" in Measured(work, "a machine", (1.0,), 1, 1, 1, 1.0).text()


@pytest.mark.parametrize(
    ("shape", "more"),
    [({"conv_rank": 2}, True), ({"blocks": {"mid": {"rank": 0}}}, False), ({"lr_text": 0.0}, False)],
    ids=["convolutions", "a block less", "no text encoder"],
)
def test_what_is_shaped_is_measured(shape: dict[str, Any], more: bool) -> None:
    plain, shaped = (measure(replace(SMALL, steps=1, shapes=({"rank": 2, **of},))) for of in ({}, shape))
    assert measure(replace(SMALL, steps=1)).flops == plain.flops
    assert shaped.flops > plain.flops if more else shaped.flops < plain.flops


def test_a_study_is_told_pass_by_pass() -> None:
    one = Pass("v1", 8, 2, ("a", "b"), steps=600, seconds=None, peak_bytes=1e9)  # batch 1, accumulate 2
    took = Measured(SMALL, "a machine", (0.4, 0.5, 9.0), 1, 1, 1, 1.0)
    text = study_text([(one, took), (one, took)], seeds=3)
    assert "a, b: 600 steps × 3 × 1000 ms = 30 min" in text
    assert "training takes about 1 h 0 min in all" in text


def test_the_step_is_the_files_or_the_lines_and_not_both(project: Path) -> None:
    told = CliRunner().invoke(app, ["bench", "-c", str(project), "--batch", "4"])
    assert told.exit_code == MISTAKE
    assert "leave out --batch" in told.output


def test_a_base_of_sizes_of_its_own_has_no_weights_here(project: Path, random_base_folder: Path) -> None:
    project.write_text(PROJECT.replace('base = "tiny"', 'base = "mine"'))
    one = Pass("v1", 8, 2, ("a", "b"), steps=600, seconds=None, peak_bytes=1e9)
    with pytest.raises(ConfigError, match="sizes of its own"):
        work_of(config.load(project), "s", one, sizes=sizes_of(random_base_folder), device="cpu", steps=1)
