"""Arms: which LoRAs of a run are drawn at which strengths, and what they are called."""

from pathlib import Path

import pytest

from vez.config import Sampling
from vez.errors import ConfigError
from vez.store import making, open_artifact
from vez.sweep import Arm, arms_of, counted, explored, named, swept


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "v1-0"
    config = {"name": "v1", "seed": 0, "steps": 40}
    with making(folder, kind="run", parents={}, config=config, version=1) as made:
        for name in ("lora", "lora-000010", "lora-000020", "lora-000030"):
            (made.path / f"{name}.safetensors").write_bytes(b"")
    return folder


def arms(run: Path, checkpoints: object, strengths: tuple[float, ...] = (1.0,)) -> dict[str, Arm]:
    return dict(swept("v1", run, variant="v1", seed=0, checkpoints=checkpoints, strengths=strengths))  # type: ignore[arg-type]


def test_an_arm_is_called_by_what_is_not_usual(run: Path) -> None:
    assert named("v1", step=None, strength=1.0) == "v1"
    assert list(arms(run, "last")) == ["v1"]
    assert list(arms(run, "last", (0.6, 1.0))) == ["v1@x0.6", "v1"]
    assert list(arms(run, "all", (0.5, 1.0))) == [
        *("v1@10x0.5", "v1@10", "v1@20x0.5", "v1@20", "v1@30x0.5", "v1@30", "v1@x0.5", "v1"),
    ]


def test_an_arm_says_what_it_is(run: Path) -> None:
    found = arms(run, (20, 40), (0.8,))
    assert found["v1@20x0.8"] == Arm(run / "lora-000020.safetensors", 0.8, "v1", "v1-0", 0, 20, last=False)
    assert found["v1@x0.8"] == Arm(run / "lora.safetensors", 0.8, "v1", "v1-0", 0, 40, last=True)


def test_a_step_that_was_not_saved_is_named(run: Path) -> None:
    with pytest.raises(ConfigError, match="no LoRA of step 25; it has those of 10, 20, 30, 40"):
        arms(run, (20, 25))


def test_what_a_manifest_says_comes_back(run: Path, tmp_path: Path) -> None:
    found = arms(run, "all", (0.5,))
    records = {name: arm.record("f00d") for name, arm in found.items()} | {"base": None}
    with making(tmp_path / "samples", kind="samples", parents={}, config={"arms": records}, version=1):
        pass
    back = arms_of(open_artifact(tmp_path / "samples"))
    assert back.pop("base") is None
    assert list(back) == list(found)
    assert all(arm is not None and arm.step == found[name].step for name, arm in back.items())
    assert [arm.strength for arm in back.values() if arm] == [0.5] * 4


@pytest.mark.parametrize(
    ("checkpoints", "save_every", "keep", "count"),
    [("last", 10, None, 1), ("all", None, None, 1), ("all", 10, None, 4), ("all", 10, 2, 3), ((10, 40), 10, None, 2)],
)
def test_the_plan_counts_them_beforehand(
    checkpoints: object, save_every: int | None, keep: int | None, count: int
) -> None:
    assert counted(40, save_every=save_every, keep=keep, checkpoints=checkpoints) == count  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"strengths": [1, 1.0]}, {"strengths": [-1]}, {"strengths": []}, {"checkpoints": []}, {"checkpoints": [0]}],
)
def test_a_sweep_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"strengths|checkpoints"):
        Sampling.model_validate(wrong)


def test_of_a_sweep_each_runs_end_at_the_strength_nearest_1_is_declared(run: Path) -> None:
    drawn = arms(run, "all", (0.5, 0.9, 1.1))
    records = {name: arm.record("0") for name, arm in drawn.items()} | {"base": None}
    assert set(drawn) - explored(records) == {"v1@x0.9"}, "of two as near to 1 the lower"
    early = {name: arm.record("0") for name, arm in arms(run, (10, 20)).items()}
    assert set(early) - explored(early) == {"v1@20"}, "the latest step stands for a run whose end was not drawn"
    assert explored({"base": None, "old": "0" * 64, "elsewhere": {"lora": "0", "run": None}}) == frozenset()
