"""Training: golden losses, exact resume, variants in company, and what stops a run."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from small import make_dataset
from vez.base import Base, cached_moments
from vez.config import Variant
from vez.dataset import Dataset
from vez.denoise import Words, variant_losses
from vez.errors import ConfigError, RunStopped, StoreError, TrainError
from vez.events import Done, Event, Note, Saved, Stage, Step, Validated, read
from vez.interop import load_kohya
from vez.lora import LoraSpec, attach
from vez.optim import AdamW
from vez.soundness import NOTHING
from vez.store import open_artifact
from vez.tape import noise, record
from vez.train import train

GOLDEN = Path(__file__).parent / "golden" / "losses.json"


def variant(**values: Any) -> Variant:
    return Variant(**{"dataset": "tiny", "batch": 2, "rank": 4, "lr_unet": 1e-3, "lr_text": 5e-4, **values})


def run(
    base: Base, dataset: Dataset, into: Path, *, steps: int = 4, variants: dict[str, Variant] | None = None, **rest: Any
) -> list[Event]:
    variants = variants or {"v1": variant()}
    folders = {name: into / name for name in variants}
    return list(train(base, dataset, variants, seed=0, steps=steps, into=folders, **rest))


def losses(events: list[Event], name: str = "v1-0") -> list[float]:
    return [event.loss for event in events if isinstance(event, Step) and event.run == name]


def lora(into: Path, name: str = "v1") -> bytes:
    return (into / name / "lora.safetensors").read_bytes()


def without_time(path: Path) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in path.read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_golden_losses(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """Six steps on the seeded tiny base. A change that should not move results leaves these alone."""
    variants = {"v1": variant(), "v2": variant(rank=8, alpha=4.0, min_snr=5.0, warmup=2, schedule="cosine")}
    events = run(random_base, tiny_dataset, tmp_path, steps=6, variants=variants)
    golden = json.loads(GOLDEN.read_text())
    for name in variants:
        assert losses(events, f"{name}-0") == pytest.approx(golden[name], rel=1e-5), name


def test_what_a_run_leaves(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    events = run(random_base, tiny_dataset, tmp_path, steps=5, save_every=2, validate_every=2, trigger="zolka")
    assert isinstance(events[0], Stage) and events[0].total == 5
    artifact = open_artifact(tmp_path / "v1")
    assert events[-1] == Done(tmp_path / "v1", artifact.id)
    assert artifact.kind == "run"
    assert artifact.parents == {"base": random_base.sha256, "dataset": tiny_dataset.id}
    assert artifact.config["variant"]["rank"] == 4 and artifact.config["seed"] == 0
    names = {"lora.safetensors", "lora-000002.safetensors", "lora-000004.safetensors", "events.jsonl"}
    assert artifact.files.keys() == names
    kept = list(read(tmp_path / "v1" / "events.jsonl"))
    assert kept == [event for event in events if isinstance(event, Step | Validated | Saved)]
    steps = [event for event in kept if isinstance(event, Step)]
    assert [event.step for event in steps] == [1, 2, 3, 4, 5] and all(event.of == 5 for event in steps)
    assert steps[0].lr_unet == 1e-3 and steps[0].lr_text == 5e-4 and steps[0].grad_norm > 0
    state, metadata = load_kohya(tmp_path / "v1" / "lora.safetensors")
    assert len(state) == 60 and all(weights.alpha == 4 for weights in state.values())
    assert metadata["ss_steps"] == "5" and metadata["modelspec.trigger_phrase"] == "zolka"
    assert any(weights.up.any() for weights in state.values())


def test_validation_is_paired_and_falls(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    variants = {"v1": variant(lr_unet=5e-3), "v2": variant(lr_unet=5e-3, rank=8)}
    events = run(random_base, tiny_dataset, tmp_path, steps=8, variants=variants, validate_every=4)
    found = [event for event in events if isinstance(event, Validated)]
    assert {(e.split, e.step) for e in found} == {(s, n) for s in ("held_out", "train") for n in (0, 4, 8)}
    first = [e for e in found if e.step == 0 and e.split == "held_out"]
    assert first[0].bands == pytest.approx(first[1].bands, rel=1e-5), "before training all variants are the base"
    assert all(len(e.bands) == 8 and e.loss == pytest.approx(sum(e.bands) / 8) for e in found)
    on_trained = [e.loss for e in found if e.split == "train" and e.run == "v1-0"]
    assert on_trained[2] < on_trained[1] < on_trained[0] * 0.99


def test_variants_in_company_are_variants_alone(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    variants = {
        "v1": variant(),
        "v2": variant(rank=8, alpha=4.0, lr_unet=2e-3, caption_dropout=0.5),
        "v3": variant(lr_text=0.0, min_snr=5.0, clip_grad=0.05),
    }
    together = run(random_base, tiny_dataset, tmp_path / "all", steps=4, variants=variants)
    for name, alone in variants.items():
        apart = run(random_base, tiny_dataset, tmp_path / "one", steps=4, variants={name: alone})
        assert losses(together, f"{name}-0") == pytest.approx(losses(apart, f"{name}-0"), rel=1e-5)
        (one, _), (other, _) = (load_kohya(tmp_path / f / name / "lora.safetensors") for f in ("all", "one"))
        assert one.keys() == other.keys()
        for key in one:
            theirs = other[key].delta()
            apart_by = torch.linalg.vector_norm(one[key].delta() - theirs) / torch.linalg.vector_norm(theirs)
            assert apart_by < 2**-11, key  # half a unit in the last place of the files' fp16
    assert all(key.startswith("lora_unet_") for key in load_kohya(tmp_path / "all" / "v3" / "lora.safetensors")[0])


@pytest.mark.parametrize(
    "change",
    [
        {"rank": 3},
        {"alpha": 2.0},
        {"lr_unet": 2e-3},
        {"lr_text": 1e-3},
        {"lr_text": 0.0},
        {"lr_unet": 0.0},
        {"weight_decay": 0.9},
        {"warmup": 2},
        {"schedule": "linear"},
        {"schedule": "cosine"},
        {"clip_grad": 0.01},
        {"min_snr": 1.0},
        {"caption_dropout": 0.7},
        {"noise_offset": 0.1},
        {"multires_noise": 4},
        {"multires_noise": 4, "multires_discount": 0.8},
        {"input_perturbation": 0.1},
        {"debiased": True},
        {"loss": "l1"},
        {"loss": "huber"},
        {"loss": "smooth_l1"},
        {"shuffle_caption": True},
        {"shuffle_caption": True, "keep_tokens": 1},
        {"tag_dropout": 0.5},
        {"flip": True},
    ],
    ids=str,
)
def test_every_setting_changes_the_result(
    change: dict[str, Any], random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    without = variant(**dict([*change.items()][:-1]))  # so that it is the last key that is tried
    run(random_base, tiny_dataset, tmp_path, steps=3, variants={"v1": without, "v2": variant(**change)})
    one, other = (load_kohya(tmp_path / name / "lora.safetensors")[0] for name in ("v1", "v2"))
    assert one.keys() != other.keys() or any(not torch.equal(one[k].delta(), other[k].delta()) for k in one)


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_cut_run_ends_in_the_same_bits(cut: int, random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    variants = {"v1": variant(), "v2": variant(rank=8, caption_dropout=0.3)}
    settings = {"steps": 6, "variants": variants, "save_every": 2, "validate_every": 3}
    run(random_base, tiny_dataset, tmp_path / "whole", **settings)
    folders = {name: tmp_path / "cut" / name for name in variants}
    rest = {"seed": 0, "steps": 6, "save_every": 2, "validate_every": 3, "checkpoint_seconds": 0.0}
    running = train(random_base, tiny_dataset, variants, into=folders, **rest)  # type: ignore[arg-type]
    for event in running:
        if isinstance(event, Step) and event.step == cut + 1:
            running.close()  # inside a step: what was logged of it must go
            break
    events = run(random_base, tiny_dataset, tmp_path / "cut", **settings)
    assert Note(f"goes on after step {cut}") in events
    for name in variants:
        assert lora(tmp_path / "cut", name) == lora(tmp_path / "whole", name)
        logs = [without_time(tmp_path / part / name / "events.jsonl") for part in ("cut", "whole")]
        assert logs[0] == logs[1]


KILLED = """
import sys
from pathlib import Path
from vez import base, dataset
from vez.config import Variant
from vez.events import Step
from vez.train import train
folder, pictures, into = map(Path, sys.argv[1:4])
setting = Variant.model_validate_json(sys.argv[4])
for event in train(base.load(str(folder)), dataset.load(pictures), {"v1": setting}, seed=0, steps=int(sys.argv[5]),
                   into={"v1": into / "v1"}, checkpoint_seconds=0.0):
    if isinstance(event, Step):
        print(event.step, flush=True)
"""


def test_kill_nine(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    folders = [str(path) for path in (random_base.path, tiny_dataset.path, tmp_path / "cut")]
    command = [sys.executable, "-c", KILLED, *folders, variant().model_dump_json(), "40"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 5:
                process.send_signal(signal.SIGKILL)
                break
    assert not (tmp_path / "cut" / "v1").exists(), "a cut run is no artifact"
    events = run(random_base, tiny_dataset, tmp_path / "cut", steps=40)
    assert any(isinstance(event, Note) and "goes on after step" in event.text for event in events)
    assert losses(events)[-1:] and len(losses(events)) < 40
    run(random_base, tiny_dataset, tmp_path / "whole", steps=40)
    assert lora(tmp_path / "cut") == lora(tmp_path / "whole")


def test_what_is_finished_is_not_trained_again(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    run(random_base, tiny_dataset, tmp_path, steps=2)
    again = run(random_base, tiny_dataset, tmp_path, steps=2)
    assert [type(event) for event in again] == [Done]
    both = run(random_base, tiny_dataset, tmp_path, steps=2, variants={"v1": variant(), "v2": variant(rank=2)})
    assert {event.run for event in both if isinstance(event, Step)} == {"v2-0"}
    assert losses(run(random_base, tiny_dataset, tmp_path, steps=3)), "other settings are another run"


WILD = {
    "loss": {"lr_unet": 1e30, "clip_grad": 0.0},
    "gradient": {"alpha": 1e30},  # up is 0 still, so the loss is the base's, and up's gradient is out of fp32
}


@pytest.mark.parametrize(("what", "at"), [("loss", 2), ("gradient", 1)])
def test_numbers_that_are_not_finite_stop_their_run_alone(
    what: str, at: int, random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    calm = {"good": variant(), "wild": variant(), "last": variant(caption_dropout=0.5)}
    run(random_base, tiny_dataset, tmp_path / "calm", steps=5, variants=calm, validate_every=2)
    stormy = calm | {"wild": variant(**WILD[what])}
    seen: list[Event] = []
    into = {name: tmp_path / "stormy" / name for name in stormy}
    rest = {"seed": 0, "steps": 5, "into": into, "validate_every": 2}
    with pytest.raises(
        RunStopped, match=rf"^wild-0 stopped at step {at}: .*{what}.* is not finite \((first|largest) in .*lora_"
    ):
        seen.extend(train(random_base, tiny_dataset, stormy, **rest))  # type: ignore[arg-type]
        raise AssertionError
    for name in ("good", "last"):
        assert lora(tmp_path / "stormy", name) == lora(tmp_path / "calm", name), "a neighbour's bits"
        logs = [without_time(tmp_path / part / name / "events.jsonl") for part in ("stormy", "calm")]
        assert logs[0] == logs[1]
    assert not (tmp_path / "stormy" / "wild").exists(), "a stopped run is no artifact"
    partial = tmp_path / "stormy" / ".wild.partial"
    *before, said = read(partial / "events.jsonl")
    assert isinstance(said, Note) and said.step == at and "lower its learning rate" in said.text
    assert [event.step for event in before if isinstance(event, Step)] == list(range(1, at))
    state, metadata = load_kohya(partial / f"lora-{at - 1:06d}.safetensors")
    assert metadata["ss_steps"] == str(at - 1) and all(torch.isfinite(w.up).all() for w in state.values())


def test_a_stopped_run_is_known_again(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """Also when the pass was cut after it stopped; and a repeated call says so without another step."""
    variants = {"good": variant(), "wild": variant(**WILD["loss"])}
    with pytest.raises(RunStopped):
        run(random_base, tiny_dataset, tmp_path / "whole", steps=6, variants=variants)
    into = {name: tmp_path / "cut" / name for name in variants}
    cut = train(random_base, tiny_dataset, variants, seed=0, steps=6, into=into, checkpoint_seconds=0.0)
    for event in cut:
        if isinstance(event, Step) and event.step == 5:
            cut.close()
            break
    with pytest.raises(RunStopped, match="wild-0 stopped at step 2"):
        run(random_base, tiny_dataset, tmp_path / "cut", steps=6, variants=variants)
    assert lora(tmp_path / "cut", "good") == lora(tmp_path / "whole", "good")
    logs = [without_time(tmp_path / part / ".wild.partial" / "events.jsonl") for part in ("cut", "whole")]
    assert logs[0] == logs[1]
    seen = []
    with pytest.raises(RunStopped, match="wild-0 stopped at step 2"):
        seen += train(random_base, tiny_dataset, variants, seed=0, steps=6, into=into)
    assert not any(isinstance(event, Step) for event in seen)


def test_a_pass_of_which_nothing_is_left_ends(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RunStopped, match=r"one-0 stopped at step 2.*; two-0 stopped at step 1"):
        run(
            random_base,
            tiny_dataset,
            tmp_path,
            steps=500,
            variants={"one": variant(**WILD["loss"]), "two": variant(**WILD["gradient"])},
        )


def test_a_lora_that_does_nothing_is_said_to(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    variants = {"v1": variant(), "idle": variant(lr_unet=1e-12, lr_text=0.0)}
    events = run(random_base, tiny_dataset, tmp_path, steps=2, variants=variants)
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note.text.startswith("idle-0 does nothing") and note in read(tmp_path / "idle" / "events.jsonl")
    saved = {event.run: event for event in events if isinstance(event, Saved)}
    assert saved["idle-0"].change is not None and 0 < saved["idle-0"].change < NOTHING
    state, _ = load_kohya(tmp_path / "v1" / "lora.safetensors")
    module = random_base.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.to_q
    delta = state["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"].delta()
    assert (
        saved["v1-0"].change is not None and saved["v1-0"].change >= float(delta.norm() / module.weight.norm()) * 0.99
    )
    whole = math.sqrt(sum(float(w.delta().square().sum()) for w in state.values()))
    assert saved["v1-0"].norm == pytest.approx(whole, rel=1e-3)


def test_a_state_of_another_making_is_refused(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    into = {"v1": tmp_path / "v1"}
    running = train(random_base, tiny_dataset, {"v1": variant()}, seed=0, steps=4, into=into, checkpoint_seconds=0.0)
    for event in running:
        if isinstance(event, Step) and event.step == 3:
            running.close()
            break
    (state,) = (tmp_path / ".v1.partial").glob("state-*")
    state.write_bytes(b"\x00" * 64)
    with pytest.raises(TrainError, match="cannot be gone on from"):
        run(random_base, tiny_dataset, tmp_path, steps=4)


def test_variants_that_cannot_share_a_pass(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one batch size"):
        run(random_base, tiny_dataset, tmp_path, variants={"v1": variant(), "v2": variant(batch=3)})


def test_half_precision_learns_the_same(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    full = losses(run(random_base, tiny_dataset, tmp_path / "fp32", steps=4))
    half = losses(run(random_base, tiny_dataset, tmp_path / "bf16", steps=4, precision="bf16"))
    assert half != full and half == pytest.approx(full, rel=2e-2)
    assert random_base.dtype == torch.float32


def test_the_cache_changes_no_bit(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    for name in ("none", "cold", "warm"):
        cache = None if name == "none" else tmp_path / "latents"
        run(random_base, tiny_dataset, tmp_path / name, steps=2, cache=cache)
    assert len(list((tmp_path / "latents").iterdir())) == len(tiny_dataset.rows)
    assert lora(tmp_path / "none") == lora(tmp_path / "cold") == lora(tmp_path / "warm")


@pytest.mark.parametrize("shapes", [((64, 64),), ((64, 64), (96, 64), (64, 96))], ids=["one shape", "buckets"])
def test_a_larger_batch_sees_the_same_samples(
    shapes: tuple[tuple[int, int], ...], random_base: Base, tmp_path: Path
) -> None:
    """At a learning rate too small to matter, batch 4's first loss is the mean of batch 1's first four."""
    dataset = make_dataset(tmp_path / "dataset", shapes=shapes)
    small = {"lr_unet": 1e-12, "lr_text": 0.0}
    ones = losses(run(random_base, dataset, tmp_path / "1", steps=4, variants={"v1": variant(batch=1, **small)}))
    four = losses(run(random_base, dataset, tmp_path / "4", steps=1, variants={"v1": variant(batch=4, **small)}))
    assert four[0] == pytest.approx(math.fsum(ones) / 4, rel=1e-5)


def test_a_step_over_buckets_has_the_mean_gradient_of_its_samples(random_base: Base, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", shapes=((64, 64), (96, 64)))
    (step,) = [
        e
        for e in run(random_base, dataset, tmp_path / "run", steps=1, variants={"v1": variant(batch=4)})
        if isinstance(e, Step)
    ]
    tape = record(len(dataset.train), seed=0, steps=1, batch=4, timesteps=len(random_base.schedule))
    rows = [dataset.train[i] for i in tape.image[0]]
    assert len({row.width for row in rows}) == 2, "this tape mixes no shapes; take another seed"
    lora = attach(random_base, [LoraSpec(4, 4.0, unet=True, text=True)], seed=0)
    try:
        words = Words.of(random_base, [row.caption for row in rows], frozen=False)
        for n, row in enumerate(rows):
            moments = cached_moments(random_base, dataset.pixels(row), sha256=row.sha256, cache=None)
            mean, deviation = moments[None].chunk(2, dim=1)
            fields = torch.from_numpy(noise(int(tape.noise_seed[0, n]), tuple(mean.shape[1:])))[None]
            timestep = torch.from_numpy(tape.timestep[0, n : n + 1])
            batch = words.batch(torch.tensor([n]), mean + deviation * fields[:, 0], fields[:, 1], timestep)
            (variant_losses(random_base, batch, variants=1).sum() / 4).backward()
        norm = float(AdamW(lora).norms()[0])
    finally:
        lora.detach()
    assert step.grad_norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize(("keep", "left"), [(None, [2, 4, 6]), (2, [4, 6]), (1, [6]), (5, [2, 4, 6])])
def test_the_newest_files_are_kept(
    keep: int | None, left: list[int], random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    run(random_base, tiny_dataset, tmp_path, steps=7, save_every=2, keep=keep)
    names = {f"lora-{step:06d}.safetensors" for step in left} | {"lora.safetensors", "events.jsonl"}
    assert open_artifact(tmp_path / "v1").files.keys() == names


@pytest.mark.parametrize("full_at", ["state-00000003", "lora-000004", "lora."])
def test_a_full_disk_loses_nothing(
    full_at: str, random_base: Base, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(random_base, tiny_dataset, tmp_path / "whole", steps=6, save_every=2)
    replace = os.replace

    def full(source: str, target: str) -> None:
        if Path(target).name.startswith(full_at):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StoreError, match=r"the disk is full; free some space and run again"):
        run(random_base, tiny_dataset, tmp_path / "cut", steps=6, save_every=2, checkpoint_seconds=0.0)
    monkeypatch.undo()
    assert not list((tmp_path / "cut" / ".v1.partial").glob(".*.tmp")), "half a file was left"
    events = run(random_base, tiny_dataset, tmp_path / "cut", steps=6, save_every=2)
    assert any(isinstance(event, Note) and "goes on after step" in event.text for event in events)
    parts = [open_artifact(tmp_path / part / "v1").files for part in ("cut", "whole")]
    assert {k: v for k, v in parts[0].items() if "lora" in k} == {k: v for k, v in parts[1].items() if "lora" in k}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_twenty_random_moments(random_base: Base, tiny_dataset: Dataset, tmp_path: Path) -> None:
    """Wherever it is hit (starting, in a step, in a file), the run ends in the same bytes."""
    setting, steps = variant(rank=64, ema=0.9, dropout=0.2, accumulate=2), 400
    folders = [str(path) for path in (random_base.path, tiny_dataset.path, tmp_path / "cut")]
    command = [sys.executable, "-c", KILLED, *folders, setting.model_dump_json(), str(steps)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
    dice, killed, ended = random.Random(20), 0, False
    while killed < 20 and not ended:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            seen, wanted = 0, dice.choice([0, 1, 1, 2, 2, 3])
            while seen < wanted and process.stdout.readline():
                seen += 1
            try:
                process.wait(timeout=dice.uniform(0.0, 4.0 if wanted == 0 else 0.3))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                killed += 1
            ended = process.wait() == 0
    assert killed == 20, f"it was finished after {killed} kills; make it longer"
    assert not (tmp_path / "cut" / "v1" / "manifest.json").exists(), "it was finished before it was hit"
    run(random_base, tiny_dataset, tmp_path / "cut", steps=steps, variants={"v1": setting})
    run(random_base, tiny_dataset, tmp_path / "whole", steps=steps, variants={"v1": setting})
    assert lora(tmp_path / "cut") == lora(tmp_path / "whole")
