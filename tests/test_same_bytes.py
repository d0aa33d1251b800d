"""The same vez.toml and seed on the same machine give the same file: by the command line, in two places."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from vez.cli import app

TOML = """
[project]
base = "base"
trigger = "zolka"
noun = "costume"
describes = "folk costume"

[dataset.v1]
images = "images"
captions = "captions"
held_out = 1
resolution = 64
buckets = "kohya"

[study.s]
steps = 3
seeds = [0, 7]
save_every = 2
validate_every = 2

[study.s.variant]
plain = { dataset = "v1", batch = 2, rank = 4 }
all = { dataset = "v1", batch = 2, rank = 2, ema = 0.9, dropout = 0.2, rank_dropout = 0.2, module_dropout = 0.1, flip = true, shuffle_caption = true, tag_dropout = 0.3, keep_tokens = 1, caption_dropout = 0.2, noise_offset = 0.05, multires_noise = 3, input_perturbation = 0.1, min_snr = 5 }
own = { dataset = "v1", batch = 1, accumulate = 2, rank = 2, optimizer = "torch.optim.Adamax", schedule = "cosine", warmup = 0.5 }
"""  # noqa: E501


def project(folder: Path, base: Path) -> Path:
    """Five pictures of three shapes."""
    for part in ("images", "captions"):
        (folder / part).mkdir(parents=True)
    (folder / "base").symlink_to(base, target_is_directory=True)
    dice = np.random.default_rng(0)
    for i in range(5):
        coarse = Image.fromarray(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize(((80, 96), (96, 80), (80, 80))[i % 3], Image.Resampling.NEAREST).save(
            folder / "images" / f"{i}.png"
        )
        words = f"zolka, a girl wearing zolka, number {i}, wood fence, green trees"
        (folder / "captions" / f"{i}.txt").write_text(words, encoding="utf-8")
    (folder / "vez.toml").write_text(TOML, encoding="utf-8")
    return folder


def test_two_places_and_two_processes_end_in_the_same_bytes(tmp_path: Path, random_base_folder: Path) -> None:
    here = project(tmp_path / "here", random_base_folder)
    there = project(tmp_path / "a longer way" / "there", random_base_folder)
    made = CliRunner().invoke(app, ["train", "-c", str(here / "vez.toml"), "--device", "cpu"])
    assert made.exit_code == 0, made.output
    command = [sys.executable, "-m", "vez", "train", "--device", "cpu"]
    environment = os.environ | {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    told = subprocess.run(command, cwd=there, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    files = {path.relative_to(here) for path in here.rglob("*.safetensors") if "base" not in path.parts}
    loras = {path for path in files if "runs" in path.parts}
    assert len(loras) == 3 * 2 * 2, "for each variant and seed the last LoRA and the one of step 2"
    for path in sorted(loras):
        assert (here / path).read_bytes() == (there / path).read_bytes(), path
    content = {(here / path).read_bytes() for path in loras if path.name == "lora.safetensors"}
    assert len(content) == 3 * 2, "each variant and seed is another LoRA"
