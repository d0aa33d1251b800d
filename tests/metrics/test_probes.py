"""Probes of real small LoRAs on a base of a few layers: what does nothing changes nothing, and what is kept."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from small import TRIGGER, make_dataset
from vez.base import Base
from vez.config import Project, Sampling
from vez.dataset import Dataset
from vez.denoise import FixedNoise, fixed_noise_losses
from vez.draw import wrong_trigger
from vez.errors import LoraFileError, StoreError
from vez.events import Done, Event, Item, Stage
from vez.interop import LoraWeights, load_kohya, save_kohya
from vez.lora import attach
from vez.metrics import probes
from vez.metrics.probed import MOST, PASSES, Probes, forwards, results
from vez.metrics.probes import probe
from vez.metrics.questions import called
from vez.shape import LoraSpec
from vez.store import open_artifact
from vez.sweep import Arm

PROJECT = Project(base="base", trigger=TRIGGER, noun="costume", describes="folk dress")
SAMPLING = Sampling(steps=2)
FEW = 2  # class pictures, to be quick
TEXTS = ("a girl in a dress", "a doll")


def lora_file(base: Base, path: Path, *, up: float = 0.0, seed: int = 0) -> Path:
    """A LoRA of random downs, its ups random times ``up``."""
    lora = attach(base, [LoraSpec(rank=2, alpha=2)], seed=seed)
    state = lora.state(0)
    lora.detach()
    dice = torch.Generator().manual_seed(seed)
    state = {
        key: LoraWeights(of.down, torch.randn(of.up.shape, generator=dice) * up, of.alpha) for key, of in state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_kohya(path, state, metadata={})
    return path


def ask(
    base: Base,
    dataset: Dataset,
    into: Path,
    arms: dict[str, Arm],
    *,
    datasets: dict[str, Dataset] | None = None,
    **rest: Any,
) -> list[Event]:
    how: dict[str, Any] = {"project": PROJECT, "class_texts": TEXTS, "sampling": SAMPLING} | rest
    return list(probe(base, arms, datasets or dict.fromkeys(arms, dataset), into=into, **how))


def summary(study: Path) -> Probes:
    found = results(study)
    assert found is not None
    return found


def rows(study: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (study / "probes" / "probes.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("small") / "small", pictures=4, held_out=2)


@pytest.fixture(autouse=True)
def _few_class_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MOST", FEW)


def test_a_lora_that_does_nothing_has_the_losses_of_the_base(random_base: Base, small: Dataset, tmp_path: Path) -> None:
    arms = {
        "v1": Arm(lora_file(random_base, tmp_path / "v1.safetensors")),
        "half": Arm(tmp_path / "v1.safetensors", 0.5),
    }
    ask(random_base, small, tmp_path / "probes", arms)
    found = summary(tmp_path)
    losses = {(r["arm"], r["split"], r["picture"], r["text"], r["timestep"]): r["loss"] for r in rows(tmp_path)}
    for (arm, *where), loss in losses.items():
        assert loss == losses["base", *where], (arm, where)
    for name in ("v1", "half"):
        arm = found.arms[name]
        assert arm.held_out and arm.train and arm.prior and arm.gap and arm.binding and arm.specificity and arm.alone
        changes = [arm.held_out.change, *arm.held_out.bands, arm.train.change, arm.prior.change, *arm.gap.bands]
        changes += [arm.gap.middle, arm.binding.gained, arm.specificity.gained, *arm.gains.values()]
        assert {(c.mean, c.low, c.high) for c in changes} == {(0.0, 0.0, 0.0)}
        assert arm.leak is None
        assert arm.says == ("Whether pictures it never saw fit it better than the base cannot be said.",)
    assert all(not one.arms for one in found.windows)


def test_rows_and_summary_hold_what_is_promised(random_base: Base, small: Dataset, tmp_path: Path) -> None:
    file = lora_file(random_base, tmp_path / "v1.safetensors", up=0.05)
    arm = Arm(file, 0.8, "v1", "v1-3", 3, 40, False)
    events = ask(random_base, small, tmp_path / "probes", {"v1@40x0.8": arm})
    own = [row for row in rows(tmp_path) if row["arm"] == "v1@40x0.8"]
    assert own[0].keys() == {
        *("arm", "run", "variant", "seed", "step", "strength", "picture", "split", "text", "timestep", "loss")
    }
    assert {(r["run"], r["variant"], r["seed"], r["step"], r["strength"]) for r in own} == {("v1-3", "v1", 3, 40, 0.8)}
    counted = {(split, text): 0 for split, text in {(r["split"], r["text"]) for r in own}}
    for row in own:
        counted[row["split"], row["text"]] += 1
    texts = dict.fromkeys([("held_out", text) for text in ("caption", "class", "trigger", "wrong", "empty")], 2 * 8)
    assert counted == texts | {("train", "caption"): 2 * 8, ("class", "caption"): FEW * 8}
    assert len(own) * 2 == forwards(held_out=2, train=2) - PASSES * (MOST - FEW)
    found = summary(tmp_path)
    assert found.timesteps == tuple(range(62, 1000, 125)) and found.noises * len(found.timesteps) == PASSES
    assert found.bands == ((62, 187), (312,), (437, 562), (687,), (812, 937))
    assert found.wrong == wrong_trigger(random_base, TRIGGER) != TRIGGER
    assert found.arms["base"].run is None and not found.limits.calibrated and not found.not_measured
    assert isinstance(events[0], Stage) and events[0].total == sum(isinstance(e, Item) for e in events)
    artifact = open_artifact(tmp_path / "probes")
    assert events[-1] == Done(tmp_path / "probes", artifact.id) and artifact.parents["base"] == random_base.sha256


def test_losses_are_those_of_validation(random_base: Base, small: Dataset, tmp_path: Path) -> None:
    """The same instrument: what `validate_every` says of the base, and of a merged LoRA, picture by picture."""
    from vez.base import encode_images
    from vez.draw import merged

    arm = Arm(lora_file(random_base, tmp_path / "v1.safetensors", up=0.05))
    ask(random_base, small, tmp_path / "probes", {"v1": arm})
    row = small.held_out[0]
    picture = FixedNoise.of(random_base, row, encode_images(random_base, small.pixels(row)[None])[0])
    for name, lora in (("base", None), ("v1", arm)):
        with merged(random_base, lora):
            wanted = fixed_noise_losses(random_base, [picture], variants=1)[0]
        where = {"arm": name, "picture": row.sha256, "split": "held_out", "text": "caption"}
        found = [r["loss"] for r in rows(tmp_path) if where.items() <= r.items()]
        assert found == wanted


class Cut(Exception):
    """Stands for a kill."""


def test_a_cut_run_goes_on_and_ends_the_same(
    random_base: Base, small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"v{i}": Arm(lora_file(random_base, tmp_path / f"v{i}.safetensors", up=0.03, seed=i)) for i in (1, 2)}
    ask(random_base, small, tmp_path / "whole" / "probes", files)
    asked = count_asked(monkeypatch)
    with pytest.raises(Cut):
        for event in events_of(random_base, small, tmp_path / "cut" / "probes", files, tmp_path / "store"):
            if isinstance(event, Item) and event.done == 20:
                raise Cut
    before = len(asked)
    ask(random_base, small, tmp_path / "cut" / "probes", files, cache=tmp_path / "store")
    for name in ("probes.jsonl", "summary.json", "manifest.json"):
        assert (tmp_path / "cut" / "probes" / name).read_bytes() == (tmp_path / "whole" / "probes" / name).read_bytes()
    total = 3 * (2 * 5 + 2 + FEW)
    assert before > 0 and before + len(asked[before:]) == total, "what was asked before the cut is not asked again"


def events_of(base: Base, dataset: Dataset, into: Path, arms: dict[str, Arm], cache: Path) -> Iterator[Event]:
    return probe(
        base,
        arms,
        dict.fromkeys(arms, dataset),
        project=PROJECT,
        class_texts=TEXTS,
        sampling=SAMPLING,
        into=into,
        cache=cache,
    )


def count_asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []
    plain = probes.fixed_noise_losses

    def counting(base: Base, pictures: Any, *, variants: int) -> list[list[float]]:
        asked.append("")
        return plain(base, pictures, variants=variants)

    monkeypatch.setattr(probes, "fixed_noise_losses", counting)
    return asked


def test_an_unchanged_checkpoint_is_not_asked_again(
    random_base: Base, small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (lora_file(random_base, tmp_path / f"{i}.safetensors", up=0.03, seed=i) for i in (1, 2))
    ask(random_base, small, tmp_path / "probes", {"v1": Arm(one)}, cache=tmp_path / "store")
    first = summary(tmp_path)
    asked = count_asked(monkeypatch)
    ask(random_base, small, tmp_path / "probes", {"v1": Arm(one)}, cache=tmp_path / "store")
    assert not asked, "nothing changed: the artifact stands"
    ask(random_base, small, tmp_path / "probes", {"v1": Arm(one), "v2": Arm(other)}, cache=tmp_path / "store")
    each = 2 * 5 + 2 + FEW
    assert len(asked) == each, "only the new checkpoint"
    ask(random_base, small, tmp_path / "probes", {"v1": Arm(one, 0.5), "v2": Arm(other)}, cache=tmp_path / "store")
    assert len(asked) == 2 * each, "another strength is another question"
    ask(random_base, small, tmp_path / "probes", {"v1": Arm(one)}, cache=tmp_path / "store")
    assert summary(tmp_path) == first and len(asked) == 2 * each


def test_a_damaged_cache_is_made_again(random_base: Base, small: Dataset, tmp_path: Path) -> None:
    arms = {"v1": Arm(lora_file(random_base, tmp_path / "v1.safetensors", up=0.03))}
    ask(random_base, small, tmp_path / "a" / "probes", arms, cache=tmp_path / "store")
    for file in (tmp_path / "store" / "probes").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    ask(random_base, small, tmp_path / "b" / "probes", arms, cache=tmp_path / "store")
    assert summary(tmp_path / "a") == summary(tmp_path / "b")


def test_what_cannot_be_measured_is_named(random_base: Base, tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "dataset", pictures=3, held_out=0)
    arms = {"v1": Arm(lora_file(random_base, tmp_path / "v1.safetensors", up=0.03), run="v1-0")}
    ask(random_base, dataset, tmp_path / "probes", arms, class_texts=())
    found = summary(tmp_path)
    assert found.not_measured.keys() == {"held_out", "binding, specificity", "prior"}
    arm = found.arms["v1"]
    assert (arm.held_out, arm.gap, arm.binding, arm.prior, arm.gains) == (None, None, None, None, {})
    assert arm.train is not None
    assert "held out" in found.windows[0].why and not found.windows[0].arms


def test_an_arm_without_held_out_pictures_is_asked_of_the_others(
    random_base: Base, small: Dataset, tmp_path: Path
) -> None:
    """But of none that it was trained on."""
    file = lora_file(random_base, tmp_path / "v1.safetensors", up=0.03)
    everything = replace(small, rows=tuple(replace(row, split="train") for row in small.rows[:3]), id="other")
    arms = {"own": Arm(file), "other": Arm(file)}
    ask(random_base, small, tmp_path / "probes", arms, datasets={"own": small, "other": everything})
    asked = {arm: {r["picture"] for r in rows(tmp_path) if (r["arm"], r["split"]) == (arm, "held_out")} for arm in arms}
    assert asked["own"] == {row.sha256 for row in small.held_out}
    assert asked["other"] == {row.sha256 for row in small.rows[3:]}


def test_a_caption_without_the_trigger_is_not_asked_with_plain_words(
    random_base: Base, small: Dataset, tmp_path: Path
) -> None:
    plain = tuple(replace(row, caption="a girl in the snow") for row in small.rows)
    file = lora_file(random_base, tmp_path / "v1.safetensors", up=0.03)
    ask(random_base, replace(small, rows=plain), tmp_path / "probes", {"v1": Arm(file)})
    found = summary(tmp_path)
    assert found.arms["v1"].binding is None and found.arms["v1"].alone is not None
    assert "trigger" in found.not_measured["binding, specificity"]


def test_broken_weights_are_named_and_stop_nobody(random_base: Base, small: Dataset, tmp_path: Path) -> None:
    huge = lora_file(random_base, tmp_path / "huge.safetensors", up=1.0)
    fine = lora_file(random_base, tmp_path / "fine.safetensors", up=0.03)
    state, _ = load_kohya(huge)
    save_kohya(
        huge,
        {k: LoraWeights(w.down * 1e30, w.up * 1e20, w.alpha) for k, w in state.items()},
        metadata={},
        dtype=torch.float32,
    )
    ask(random_base, small, tmp_path / "probes", {"huge": Arm(huge), "fine": Arm(fine)})
    found = summary(tmp_path)
    assert found.arms.keys() == {"base", "fine"} and "broken" in found.not_measured["huge"]
    assert {row["loss"] for row in rows(tmp_path) if row["arm"] == "huge"} & {"nan", "inf"}


def test_a_missing_file_and_a_damaged_artifact_are_said(random_base: Base, small: Dataset, tmp_path: Path) -> None:
    with pytest.raises(LoraFileError, match="train it first"):
        ask(random_base, small, tmp_path / "probes", {"v1": Arm(tmp_path / "none.safetensors")})
    assert results(tmp_path) is None
    ask(random_base, small, tmp_path / "probes", {"v1": Arm(lora_file(random_base, tmp_path / "v1.safetensors"))})
    (tmp_path / "probes" / "summary.json").write_text('{"arms": 3}')
    with pytest.raises(StoreError, match="probe again"):
        results(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("zolka, a girl wearing zolka in snow", "dress, a girl wearing dress in snow"),
        ("a girl in a Zolka  costume", "a girl in a dress"),
        ("a costume of zolkas", None),
        ("", None),
    ],
)
def test_words_in_the_triggers_place(text: str, found: str | None) -> None:
    assert called(text, "zolka", "dress", noun="costume") == found


def test_a_backslash_in_the_words_is_a_backslash() -> None:
    assert called("a zolka", "zolka", r"\1 \g<0>") == r"a \1 \g<0>"
