import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vez import base as bases
from vez import interop
from vez.base import Base
from vez.config import Project, Prompt, Sampling
from vez.draw import wrong_trigger
from vez.errors import ConfigError, LoraFileError
from vez.events import Done, Event, Sampled, Stage
from vez.interop import LoraWeights
from vez.sample import read_rows, sample
from vez.solver import moves, noise, noise_seed
from vez.store import open_artifact
from vez.sweep import Arm

ROOT = Path(__file__).parents[1]
PROJECT = Project(base="tiny", trigger="zorbcoat", noun="coat", describes="a striped coat")
PROMPTS = (
    Prompt(text="a photo of {trigger} {noun} in the snow", context="in the snow", group="g1", id="snow-trigger"),
    Prompt(text="a photo of {describes} in the snow", role="class", group="g1", id="snow-class"),
    Prompt(text="a cat", role="drift", id="cat"),
)
SAMPLING = Sampling(steps=3, cfg=4.0, seeds=2, batch=4, negative="blurred")


@pytest.fixture(scope="module")
def base(random_base_folder: Path) -> Base:
    return bases.load(str(random_base_folder))


@pytest.fixture(scope="module")
def lora(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of rank 2 on every module, strong enough to be seen."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for key, target in interop.base_keys(base).items():
        parent, name = interop.parent_of(base, target)
        weight = parent.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        shape = weight.shape
        ends = [1] * (len(shape) - 2)
        down = torch.randn(2, shape[1], *ends, generator=generator) * 0.2
        state[key] = LoraWeights(down, torch.randn(shape[0], 2, *ends, generator=generator) * 0.2, 2.0)
    path = tmp_path_factory.mktemp("lora") / "lora.safetensors"
    interop.save_kohya(path, state, metadata={})
    return path


@pytest.fixture(scope="module")
def drawn(base: Base, lora: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    into = tmp_path_factory.mktemp("study") / "samples"
    return into, list(_sample(base, {"base": None, "v1": lora}, into))


def _sample(base: Base, arms: dict[str, Path | None], into: Path, sampling: Sampling = SAMPLING) -> Iterator[Event]:
    return sample(base, arms, PROMPTS, sampling=sampling, into=into, project=PROJECT)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_events_rows_and_manifest(drawn: tuple[Path, list[Event]], base: Base) -> None:
    into, events = drawn
    assert events[0] == Stage("sample", 12, "2 arms × 6 pictures")
    assert sum(isinstance(event, Sampled) for event in events) == 12
    artifact = open_artifact(into)
    assert events[-1] == Done(into, artifact.id)
    assert artifact.kind == "samples" and artifact.parents["base"] == base.sha256
    rows = read_rows(into)
    assert len(rows) == 12 and {row["file"] for row in rows} | {"samples.jsonl", "controls.json"} == set(artifact.files)
    assert len({row["key"] for row in rows}) == 12
    assert {key: value for key, value in rows[0].items() if key != "key"} == {
        "arm": "base",
        "prompt": "snow-trigger",
        "set": "user",
        "group": "g1",
        "role": "trigger",
        "text": "a photo of zorbcoat coat in the snow",
        "context": "in the snow",
        "seed": 0,
        "noise_seed": noise_seed(0),
        "file": "base/snow-trigger-0.png",
    }
    for row in rows:
        with Image.open(into / row["file"]) as image:
            assert (image.size, image.mode) == ((base.size, base.size), "RGB")


def test_what_a_png_says_of_itself(drawn: tuple[Path, list[Event]], base: Base) -> None:
    into, _ = drawn
    with Image.open(into / "v1/snow-trigger-1.png") as image:
        prompt, negative, rest = image.info["parameters"].split("\n")
    assert prompt == "a photo of zorbcoat coat in the snow <lora:v1:1>"
    assert negative == "Negative prompt: blurred"
    assert rest.startswith(f"Steps: 3, Sampler: DPM++ 2M, CFG scale: 4, Seed: {noise_seed(1)}, Size: ")
    assert f"Model hash: {base.sha256[:10]}" in rest and 'Lora hashes: "v1: ' in rest
    with Image.open(into / "base/cat-0.png") as image:
        assert "lora" not in image.info["parameters"].lower()


def test_the_lora_acts_and_is_taken_out_again(drawn: tuple[Path, list[Event]], base: Base, lora: Path) -> None:
    into, _ = drawn
    plain, adapted = (np.asarray(Image.open(into / arm / "cat-0.png")) for arm in ("base", "v1"))
    assert np.abs(plain.astype(int) - adapted).max() > 8
    fresh = bases.load(base.name)
    for part in ("unet", "text_encoder"):
        ours, theirs = getattr(base, part).state_dict(), getattr(fresh, part).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_order_and_number_of_arms_changes_no_pixel(
    drawn: tuple[Path, list[Event]], base: Base, lora: Path, tmp_path: Path
) -> None:
    list(_sample(base, {"v1": lora}, tmp_path / "samples"))
    alone = {name: data for name, data in _bytes(tmp_path / "samples").items() if name.endswith(".png")}
    assert alone == {name: data for name, data in _bytes(drawn[0]).items() if name.startswith("v1/")}


@pytest.mark.parametrize("after", [2, 5, 9])
def test_cut_short_and_resumed_gives_the_same_bytes(
    drawn: tuple[Path, list[Event]], base: Base, lora: Path, tmp_path: Path, after: int
) -> None:
    into = tmp_path / "samples"
    cut = _sample(base, {"base": None, "v1": lora}, into)
    list(itertools.islice(cut, after))
    cut.close()  # type: ignore[attr-defined]
    assert not into.exists()
    partial = into.with_name(".samples.partial")
    pictures = sorted(partial.rglob("*.png"))
    pictures[-1].unlink()  # killed inside a batch: some of its pictures are there
    list(_sample(base, {"base": None, "v1": lora}, into))
    assert _bytes(into) == _bytes(drawn[0])
    assert not partial.exists()


KILLED = """
import sys, torch
from pathlib import Path
from tests.test_sample import SAMPLING, _sample
from vez import base
torch.set_num_threads(1)
for event in _sample(base.load(sys.argv[1]), {"base": None, "v1": Path(sys.argv[2])}, Path(sys.argv[3])):
    print(type(event).__name__, flush=True)
"""


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bytes(
    drawn: tuple[Path, list[Event]], base: Base, lora: Path, tmp_path: Path
) -> None:
    into = tmp_path / "samples"
    command = [sys.executable, "-W", "ignore", "-c", KILLED, base.name, str(lora), str(into)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert child.stdout is not None
    for _ in range(4):  # Stage and three pictures: one batch is written, the next is being drawn
        child.stdout.readline()
    child.kill()
    child.wait()
    child.stdout.close()
    assert not into.exists() and len(list(into.with_name(".samples.partial").rglob("*.png"))) >= 4
    list(_sample(base, {"base": None, "v1": lora}, into))
    assert _bytes(into) == _bytes(drawn[0])


def test_what_is_finished_is_not_drawn_again(drawn: tuple[Path, list[Event]], base: Base, lora: Path) -> None:
    into, events = drawn
    before = {path: path.stat().st_mtime_ns for path in into.rglob("*")}
    again = list(_sample(base, {"base": None, "v1": lora}, into))
    assert [type(event) for event in again] == [Stage, Done] and again[-1] == events[-1]
    assert {path: path.stat().st_mtime_ns for path in into.rglob("*")} == before


@pytest.mark.parametrize("change", [{"cfg": 1.0}, {"steps": 4}, {"solver": "ddim"}, {"negative": ""}])
def test_every_setting_changes_the_picture_and_the_id(
    drawn: tuple[Path, list[Event]], base: Base, tmp_path: Path, change: dict[str, object]
) -> None:
    *_, done = _sample(base, {"base": None}, tmp_path / "s", SAMPLING.model_copy(update=change))
    assert isinstance(done, Done) and done.id != open_artifact(drawn[0]).id
    name = "base/snow-trigger-0.png"
    ours, theirs = (np.asarray(Image.open(folder / name)).astype(int) for folder in (tmp_path / "s", drawn[0]))
    assert not np.array_equal(ours, theirs)


def test_bf16_is_near_but_not_the_same(drawn: tuple[Path, list[Event]], base: Base, tmp_path: Path) -> None:
    into = tmp_path / "s"
    list(sample(base, {"base": None}, PROMPTS, sampling=SAMPLING, into=into, project=PROJECT, precision="bf16"))
    ours, theirs = (np.asarray(Image.open(at / "base/cat-0.png")).astype(int) for at in (into, drawn[0]))
    assert 0 < np.abs(ours - theirs).mean() < 4
    assert open_artifact(into).config["dtype"] == "bf16"


def test_noise_is_published_and_does_not_depend_on_its_company() -> None:
    # first 32 bits of sha256("vez-eval-1:0"): the definition, worked out with sha256sum
    assert noise_seed(0) == 0x39A9E6FC
    assert torch.equal(noise([4, 1], 8, 8)[1], noise([1], 8, 8)[0])
    assert not torch.equal(noise([0], 8, 8), noise([1], 8, 8))


@pytest.mark.parametrize("steps", [0, 1000, 1200])
@pytest.mark.parametrize("solver", ["dpm++2m", "ddim"])
def test_more_steps_than_timesteps_are_refused(steps: int, solver: str) -> None:
    with pytest.raises(ConfigError, match=rf"sampling.steps is {steps}"):
        moves(np.linspace(0.999, 0.005, 1000), steps, solver=solver)  # type: ignore[arg-type]


def test_what_cannot_be_drawn_is_refused_before_anything_is_written(base: Base, lora: Path, tmp_path: Path) -> None:
    into = tmp_path / "samples"
    twice = (PROMPTS[2], PROMPTS[2])
    bad: list[tuple[Callable[[], Iterator[Event]], str]] = [
        (lambda: sample(base, {"base": None}, PROMPTS, sampling=SAMPLING, into=into), "placeholder"),
        (lambda: sample(base, {"base": None}, twice, sampling=SAMPLING, into=into), "id of its own"),
        (lambda: sample(base, {"../x": None}, PROMPTS[2:], sampling=SAMPLING, into=into), "folder's name"),
        (lambda: sample(base, {}, PROMPTS[2:], sampling=SAMPLING, into=into), "at least one arm"),
    ]
    for call, message in bad:
        with pytest.raises(ConfigError, match=message):
            list(call())
    with pytest.raises(LoraFileError, match=r"none\.safetensors"):
        list(_sample(base, {"v1": tmp_path / "none.safetensors"}, into))
    assert list(tmp_path.iterdir()) == []


def test_a_lora_that_makes_no_numbers_is_named(base: Base, lora: Path, tmp_path: Path) -> None:
    state, metadata = interop.load_kohya(lora)
    huge = {key: LoraWeights(w.down, w.up * 1e30, w.alpha) for key, w in state.items()}
    broken = tmp_path / "broken.safetensors"
    interop.save_kohya(broken, huge, metadata=metadata, dtype=torch.float32)
    with pytest.raises(LoraFileError, match="'v9' draws values that are not finite"):
        list(_sample(base, {"v9": broken}, tmp_path / "samples"))
    before = base.unet.state_dict()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in before.values())


def test_rows_are_whole_lines_of_json(drawn: tuple[Path, list[Event]]) -> None:
    text = (drawn[0] / "samples.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n") and all(json.loads(line) for line in text.splitlines())


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def drawn_again(events: list[Event]) -> set[str]:
    """The arms of which something was drawn and not found."""
    return {event.arm for event in events if isinstance(event, Sampled) and event.seconds > 0}


def test_a_new_arm_is_drawn_and_the_others_are_taken_over(
    drawn: tuple[Path, list[Event]], base: Base, lora: Path, tmp_path: Path
) -> None:
    into = tmp_path / "samples"
    list(_sample(base, {"base": None, "v1": lora}, into))
    before = _bytes(into)
    arms: dict[str, Arm | Path | None] = {"base": None, "v1": lora, "v1@x0.5": Arm(lora, 0.5)}
    events = list(sample(base, arms, PROMPTS, sampling=SAMPLING, into=into, project=PROJECT))
    assert drawn_again(events) == {"v1@x0.5"}
    after = _bytes(into)
    assert {name: after[name] for name in before if name.endswith(".png")} == {
        name: data for name, data in before.items() if name.endswith(".png")
    }
    fewer = list(_sample(base, {"v1": lora}, into))
    assert drawn_again(fewer) == set() and not (into / "base").exists()


def test_the_base_is_drawn_once_for_all_studies(base: Base, lora: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, other, third = tmp_path / "one", tmp_path / "other", tmp_path / "third"
    how = {"sampling": SAMPLING, "project": PROJECT, "cache": cache}
    list(sample(base, {"base": None, "v1": lora}, PROMPTS, into=one, **how))  # type: ignore[arg-type]
    assert len(list(cache.rglob("*.png"))) == 6, "of the base alone"
    events = list(sample(base, {"plain": None, "v2": lora}, PROMPTS, into=other, **how))  # type: ignore[arg-type]
    assert drawn_again(events) == {"v2"}
    assert (one / "base/cat-0.png").read_bytes() == (other / "plain/cat-0.png").read_bytes()
    how["sampling"] = SAMPLING.model_copy(update={"cfg": 3.0})
    assert drawn_again(list(sample(base, {"base": None}, PROMPTS, into=third, **how))) == {"base"}  # type: ignore[arg-type]
    for kept in cache.rglob("*.png"):
        kept.write_bytes(kept.read_bytes()[:100])  # torn by a full disk
    how["sampling"] = SAMPLING
    again = list(sample(base, {"base": None}, PROMPTS, into=tmp_path / "fourth", **how))  # type: ignore[arg-type]
    assert drawn_again(again) == {"base"}


def test_strength_scales_what_the_lora_does(base: Base, lora: Path, tmp_path: Path) -> None:
    arms: dict[str, Arm | Path | None] = {f"s{i}": Arm(lora, i / 4) for i in (0, 1, 2, 4)} | {"base": None}
    into = tmp_path / "samples"
    list(sample(base, arms, PROMPTS[2:], sampling=SAMPLING, into=into))
    plain = _pixels(into / "base/cat-0.png")
    apart = {arm: np.abs(_pixels(into / arm / "cat-0.png") - plain).mean() for arm in arms}
    assert apart["s0"] == 0 and 0 < apart["s1"] < apart["s2"]
    records = open_artifact(into).config["arms"]
    assert records["base"] is None and records["s1"]["strength"] == 0.25
    with Image.open(into / "s1/cat-0.png") as image:
        assert image.info["parameters"].startswith("a cat <lora:s1:0.25>\n")


def test_a_checkpoint_is_called_as_its_file(base: Base, lora: Path, tmp_path: Path) -> None:
    arm = Arm(lora, 0.5, variant="v1", run="v1-0", seed=0, step=400, last=False)
    list(sample(base, {"v1@400x0.5": arm}, PROMPTS[2:], sampling=SAMPLING, into=tmp_path / "s"))
    with Image.open(tmp_path / "s/v1@400x0.5/cat-0.png") as image:
        assert "<lora:v1-000400:0.5>" in image.info["parameters"]
        assert 'Lora hashes: "v1-000400: ' in image.info["parameters"]
    assert open_artifact(tmp_path / "s").config["arms"]["v1@400x0.5"]["step"] == 400


def test_strength_0_is_checked_and_recorded(drawn: tuple[Path, list[Event]]) -> None:
    assert json.loads((drawn[0] / "controls.json").read_bytes()) == {"strength_0": {"v1": 0}}


def test_a_base_that_is_not_put_back_is_found(
    base: Base, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A merge whose undo does nothing: the control, not a reader of the report, says so."""
    weights = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    words = {name: tensor.clone() for name, tensor in base.text_encoder.state_dict().items()}
    merge = interop.merge

    def forgetful(*args: object, **how: object) -> Callable[[], None]:
        merge(*args, **how)  # type: ignore[arg-type]
        return lambda: None

    monkeypatch.setattr(interop, "merge", forgetful)
    try:
        with pytest.raises(LoraFileError, match=r"at strength 0 .* still moves pictures by \d+ of 255"):
            list(_sample(base, {"v1": lora}, tmp_path / "samples"))
    finally:
        base.unet.load_state_dict(weights)
        base.text_encoder.load_state_dict(words)
    assert not (tmp_path / "samples").exists()


def test_prompts_with_noises_of_their_own(base: Base, tmp_path: Path) -> None:
    prompts = (PROMPTS[2], PROMPTS[0].model_copy(update={"seeds": 3}))
    how = SAMPLING.model_copy(update={"first_seed": 100})
    list(sample(base, {"base": None}, prompts, sampling=how, into=tmp_path / "s", project=PROJECT))
    found = {(row["prompt"], row["seed"], row["noise_seed"]) for row in read_rows(tmp_path / "s")}
    assert found == {("cat", i, noise_seed(i)) for i in (100, 101)} | {
        ("snow-trigger", i, noise_seed(i)) for i in (100, 101, 102)
    }


def test_a_wrong_trigger_stands_where_the_right_one_would(base: Base, tmp_path: Path) -> None:
    prompts = (Prompt(text="a photo of {wrong} {noun}", role="wrong", set="D", id="D01-wrong"),)
    list(sample(base, {"base": None}, prompts, sampling=SAMPLING, into=tmp_path / "s", project=PROJECT))
    word = wrong_trigger(base, PROJECT.trigger)
    row = read_rows(tmp_path / "s")[0]
    assert (row["text"], row["set"], row["role"]) == (f"a photo of {word} coat", "D", "wrong")
    assert open_artifact(tmp_path / "s").config["wrong"] == word


@pytest.mark.parametrize("trigger", ["zorbcoat", "nosnjaoutfit", "sks", "the old red coat", "zola"])
def test_a_wrong_trigger_has_as_many_tokens_and_none_of_them(trigger: str) -> None:
    tiny = bases.load("tiny")
    right, wrong = (tiny.tokenizer.bare(text) for text in (trigger, wrong_trigger(tiny, trigger)))
    assert len(right) == len(wrong) and not set(right) & set(wrong)
    assert wrong_trigger(tiny, trigger) == wrong_trigger(tiny, trigger)
