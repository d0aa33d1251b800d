"""The reference study on a base of Stable Diffusion 1.5's sizes, as a person runs it, to its files.

The weights are random, so it shows sizes, formats, memory and time, and nothing about quality.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from full_size import write_folder
from vez import demo
from vez.plan import HEADER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
MIB = 2**20
SIZES = {"v1": 36 * MIB, "v2": 36 * MIB, "v3": 72 * MIB, "v4": 72 * MIB}
"""Bytes of the LoRAs' weights: fp16, rank 32 and 64, U-Net and text encoder."""
SCALES = {"v1": 1.0, "v2": 1.0, "v3": 1.0, "v4": 0.5}
MODULES = 192 + 72
NAMES = 128 * 1024  # bytes of a header: 792 names, shapes and places, and the metadata
ROOM = 12e9  # bytes that training and drawing may take
TOML = """
[project]
base = "base"
trigger = "nosnjaoutfit"
noun = "folk costume"
describes = "traditional Serbian folk costume"

[dataset.v1]
images = "images/v1"
captions = "captions"
resolution = 256

[dataset.v2]
images = "images/v2"
captions = "captions"
held_out = 1
resolution = 256

[study.thesis]
images_seen = 8
precision = "bf16"
side_by_side = {side_by_side}
clip = "clip"
suite = "own"

[study.thesis.variant]
v1 = {{ dataset = "{first}", batch = {one}, rank = 32, alpha = 32, lr_unet = 1e-4, lr_text = 5e-5 }}
v2 = {{ dataset = "v2", batch = {eight}, rank = 32, alpha = 32, lr_unet = 1e-4, lr_text = 5e-5 }}
v3 = {{ dataset = "v2", batch = {eight}, rank = 64, alpha = 64, lr_unet = 1e-4, lr_text = 5e-5 }}
v4 = {{ dataset = "v2", batch = {eight}, rank = 64, alpha = 32, lr_unet = 1e-4, lr_text = 5e-5 }}

[study.thesis.sampling]
steps = 1
seeds = 1
size = 256
batch = 1

[[study.thesis.prompts]]
id = "snow-trigger"
group = "snow"
text = "a girl wearing {{trigger}} in the snow"
context = "in the snow"

[[study.thesis.prompts]]
id = "snow-class"
group = "snow"
role = "class"
text = "a girl wearing {{describes}} in the snow"
context = "in the snow"
"""


@dataclass(frozen=True)
class Told:
    """What a command printed and took."""

    text: str
    seconds: float
    peak: float
    """Bytes."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_folder("sd1", tmp_path_factory.mktemp("sd15"))
    yield folder
    shutil.rmtree(folder)  # gigabytes, which pytest would keep


def project(folder: Path, base: Path, **settings: object) -> Path:
    """Nine of the demo's pictures, six of them the first version, each with the caption that was written for it."""
    own = Path(demo.__file__).parent
    for version, pictures in (("v1", 6), ("v2", 9)):
        (folder / "images" / version).mkdir(parents=True)
        for picture in sorted((own / "project" / "images" / "v2").glob("nosnja-*"))[:pictures]:
            shutil.copy(picture, folder / "images" / version)
    shutil.copytree(own / "project" / "captions" / "v2", folder / "captions")
    (folder / "base").symlink_to(base, target_is_directory=True)
    (folder / "clip").symlink_to(own / "clip", target_is_directory=True)
    (folder / "vez.toml").write_text(TOML.format(**settings), encoding="utf-8")
    return folder


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def vez(folder: Path, *words: str) -> Told:
    """A command of vez in a process of its own, with a thread for each core that it may use."""
    command = [sys.executable, "-m", "vez", *words, "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": str(_cores())}
    began = time.perf_counter()
    with (folder / "told.txt").open("w+") as told:
        process = subprocess.Popen(command, cwd=folder, stdout=told, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        text = told.read()
    assert process.returncode == 0, text
    unit = 1 if sys.platform == "darwin" else 1024
    return Told(text, time.perf_counter() - began, float(usage.ru_maxrss * unit))


def say(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n{line}", end=" ")


def lora(folder: Path, name: str) -> Path:
    return folder / "studies" / "thesis" / "runs" / f"{name}-0" / "lora.safetensors"


def holds(folder: Path) -> None:
    """Four files of the right sizes, by the format alone and by safetensors; every module trained, none dead."""
    for name, size in SIZES.items():
        path = lora(folder, name)
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        tensors = {key: value for key, value in header.items() if key != "__metadata__"}
        weights = {key: value for key, value in tensors.items() if not key.endswith(".alpha")}
        told = {key: value["data_offsets"][1] - value["data_offsets"][0] for key, value in tensors.items()}
        assert sum(told[key] for key in weights) == size, name
        assert sum(told.values()) == size + 2 * MODULES, "and an alpha of two bytes for each module"
        assert len(content) == 8 + length + sum(told.values())
        assert 8 + length + 2 * MODULES < NAMES < HEADER, "the plan counts no less for names and metadata"
        assert {value["dtype"] for value in tensors.values()} == {"F16"}
        with safe_open(path, framework="pt") as opened:
            assert len(opened.keys()) == 3 * MODULES
            rank = int(opened.metadata()["ss_network_dim"])
            for key in [key for key in tensors if key.endswith(".alpha")]:
                module = key.removesuffix(".alpha")
                down, up = (opened.get_tensor(f"{module}.lora_{part}.weight") for part in ("down", "up"))
                assert (down.shape[0], up.shape[1]) == (rank, rank) == (size // MIB * 32 // 36,) * 2
                assert opened.get_tensor(key).item() == SCALES[name] * rank
                assert torch.isfinite(down).all() and torch.isfinite(up).all() and up.any(), module


@pytest.mark.filterwarnings("ignore")  # what diffusers says about itself is not under test
def test_the_whole_study(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in the thesis: batch 1 beside batch 8, two versions of the pictures; to the report."""
    settings = {"first": "v1", "one": 1, "eight": 8, "side_by_side": 1}
    folder = project(tmp_path / "thesis", base, **settings)
    plan = subprocess.run(
        [sys.executable, "-m", "vez", "study", "--plan"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    assert plan.count("36.00 MiB") == plan.count("72.00 MiB") == 2 and "Stable Diffusion 1.x" in plan
    told = vez(folder, "study")
    say(capsys, f"the whole study: {told.seconds:.0f} s, {told.peak / 1e9:.1f} GB at the peak")
    assert told.peak < ROOM
    holds(folder)
    lines = [(lora(folder, name).parent / "events.jsonl").read_text().splitlines() for name in SIZES]
    steps = [json.loads(line) for of_one in lines for line in of_one]
    seconds: dict[str, list[float]] = {}
    for event in steps:
        if event["event"] == "step":
            seconds.setdefault(event["run"], []).append(event["seconds"])
    assert {run: len(taken) for run, taken in seconds.items()} == {"v1-0": 8, "v2-0": 1, "v3-0": 1, "v4-0": 1}
    say(capsys, f"seconds per step: { {run: round(median(taken), 1) for run, taken in seconds.items()} }")
    samples = folder / "studies" / "thesis" / "samples"
    assert {arm.name for arm in samples.iterdir() if arm.is_dir()} == {"base", *SIZES}
    page = (folder / "studies" / "thesis" / "report.html").read_text(encoding="utf-8")
    assert all(f">{name}<" in page for name in SIZES)
    diffusers_loads(base, folder)


def test_all_four_in_one_pass(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one dataset and batch they train side by side, over one base."""
    folder = project(tmp_path / "pass", base, first="v2", one=1, eight=1, side_by_side=4)
    text = (folder / "vez.toml").read_text(encoding="utf-8").replace("images_seen = 8", "images_seen = 2")
    (folder / "vez.toml").write_text(text, encoding="utf-8")
    told = vez(folder, "train")
    say(capsys, f"four in one pass: {told.seconds:.0f} s, {told.peak / 1e9:.1f} GB at the peak")
    assert told.peak < ROOM
    holds(folder)


def diffusers_loads(base: Path, folder: Path) -> None:
    """Each file goes onto all 264 modules of diffusers' networks; each adds alpha / rank · up · down to its weight."""
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    text = CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32)
    pipeline = StableDiffusionPipeline(
        vae=None, text_encoder=text, tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"), unet=unet,
        scheduler=None, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    for name, scale in SCALES.items():
        pipeline.load_lora_weights(lora(folder, name), adapter_name=name)
        own = load_file(lora(folder, name))
        seen = 0
        for prefix, network in (("lora_unet_", unet), ("lora_te_text_model_", text)):
            for place, module in network.named_modules():
                if name not in getattr(module, "lora_A", {}):
                    continue
                key = prefix + place.removeprefix("text_model.").replace(".", "_")
                down, up = (own[f"{key}.lora_{part}.weight"].float() for part in ("down", "up"))
                added = module.get_delta_weight(name)
                wanted = scale * (up.flatten(1) @ down.flatten(1)).view(added.shape)
                torch.testing.assert_close(added, wanted, rtol=1e-4, atol=1e-9)
                seen += 1
        assert seen == MODULES
        pipeline.delete_adapters(name)
