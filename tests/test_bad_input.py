"""What people get wrong most: each is one sentence on stderr that names it and the way out, and exit code 2."""

import pickle
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ldm_files import make_small, write_single
from small_words import make_tokenizer
from vez.base import Base
from vez.cli import MISTAKE, app
from vez.interop import save_kohya
from vez.lora import LoraSpec, attach

TOML = """
[project]
base = "{base}"
{project}
trigger = "zolka"
noun = "costume"
describes = "folk costume"

[dataset.v1]
images = "images"
captions = "captions"
resolution = 64

[study.s]
steps = 1
{study}

[study.s.variant]
a = {{ dataset = "v1", {variant} }}
"""


def project(folder: Path, *, base: str = "base", project: str = "", study: str = "", variant: str = "rank = 2") -> Path:
    """Two captioned pictures and a vez.toml."""
    (folder / "images").mkdir()
    (folder / "captions").mkdir()
    dice = np.random.default_rng(0)
    for i in range(2):
        coarse = Image.fromarray(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((80, 96), Image.Resampling.NEAREST).save(folder / "images" / f"{i}.png")
        (folder / "captions" / f"{i}.txt").write_text(f"zolka, a girl wearing zolka, number {i}", encoding="utf-8")
    (folder / "vez.toml").write_text(TOML.format(base=base, project=project, study=study, variant=variant))
    return folder / "vez.toml"


def said(*words: str | Path) -> str:
    """The one line that a command ends with."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == MISTAKE, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("vez: "), result.stderr
    return lines[0]


@pytest.fixture
def here(tmp_path: Path, random_base_folder: Path) -> Path:
    (tmp_path / "base").symlink_to(random_base_folder, target_is_directory=True)
    return tmp_path


@pytest.mark.parametrize("left", [(), ("0.txt",)], ids=["missing", "partial"])
def test_captions_missing_where_nothing_could_write_them(left: tuple[str, ...], here: Path) -> None:
    file = project(here)
    for caption in (here / "captions").iterdir():
        if caption.name not in left:
            caption.unlink()
    line = said("train", "-c", file)
    assert "captioner" in line and "write the captions by hand" in line
    assert "1.png" in line or not left


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("rank = 0", ('"rank"', "0", "greater than or equal to 1")),
        ("rank = 2, alpha = -1", ('"alpha"', "-1", "greater than 0")),
        ("rank = 2, lr_unte = 1e-4", ('"lr_unte"', 'did you mean "lr_unet"?')),
        ("network_dim = 2", ('"network_dim"',)),
    ],
)
def test_settings(variant: str, words: tuple[str, ...], here: Path) -> None:
    line = said("train", "-c", project(here, variant=variant))
    assert all(word in line for word in ("[study.s.variant.a]", *words)), line


def test_an_unknown_key_anywhere(here: Path) -> None:
    line = said("study", "--plan", "-c", project(here, study="image_seen = 5"))
    assert '[study.s] has no key "image_seen"; did you mean "images_seen"?' in line


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "tokenizer"
    make_tokenizer(folder)
    return folder


def test_a_base_of_no_family(here: Path, tokenizer: Path) -> None:
    tensors = {"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2), "img_in.weight": torch.zeros(2, 2)}
    save_file(tensors, here / "flux.safetensors")
    line = said("train", "-c", project(here, base="flux.safetensors", project=f'tokenizer = "{tokenizer}"'))
    assert "flux.safetensors" in line


def test_a_vae_of_another_family(here: Path, tokenizer: Path) -> None:
    small = make_small("sdxl", words=600)
    small.vae.save_pretrained(here / "xl-vae")
    line = said("train", "-c", project(here, project='vae = "xl-vae"'))
    assert "0.13025" in line and "0.18215" in line and "xl-vae" in line


def test_a_lora_for_another_base(here: Path, random_base: Base, family_folders: dict[str, Path]) -> None:
    lora = attach(random_base, [LoraSpec(2, 1.0)], seed=0)
    lora.detach()
    save_kohya(here / "lora.safetensors", lora.state(0), metadata={})
    line = said("convert", here / "lora.safetensors", here / "out", "--into", family_folders["sdxl"])
    assert "this LoRA (a small base of SD 1.x layout)" in line and "sdxl' (a small base of SDXL layout)" in line
    assert not (here / "out").exists()


@pytest.mark.parametrize("cut", [0, 5, 100, -1], ids=["empty", "no header", "half a header", "a byte short"])
def test_truncated_files(cut: int, here: Path, tokenizer: Path, random_base: Base) -> None:
    small = make_small("sd1", words=600)
    whole = write_single(small, here / "whole.safetensors").read_bytes()
    (here / "m.safetensors").write_bytes(whole[:cut])
    assert "m.safetensors" in said(
        "train", "-c", project(here, base="m.safetensors", project=f'tokenizer = "{tokenizer}"')
    )
    lora = attach(random_base, [LoraSpec(2, 1.0)], seed=0)
    lora.detach()
    save_kohya(here / "lora.safetensors", lora.state(0), metadata={})
    (here / "cut.safetensors").write_bytes((here / "lora.safetensors").read_bytes()[:cut])
    assert "cut.safetensors" in said("show", here / "cut.safetensors")


def test_numbers_that_are_none(here: Path, random_base: Base) -> None:
    lora = attach(random_base, [LoraSpec(2, 1.0)], seed=0)
    lora.detach()
    save_kohya(here / "lora.safetensors", lora.state(0), metadata={})
    tensors = load_file(here / "lora.safetensors")
    tensors[next(key for key in tensors if key.endswith("up.weight"))][0] = float("nan")
    save_file(tensors, here / "nan.safetensors")
    assert "nan.safetensors" in said("show", here / "nan.safetensors")


class Code:
    """Pickled, it is a call."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must not run",))


def test_a_checkpoint_that_wants_pickle(here: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}, "callbacks": Code()}, here / "m.ckpt")
    line = said("train", "-c", project(here, base="m.ckpt", project=f'tokenizer = "{tokenizer}"'))
    assert "m.ckpt" in line and "run its code" in line and ".safetensors" in line
    assert "this must not run" not in capsys.readouterr().out
    (here / "lora.pt").write_bytes(pickle.dumps({"a": 1}))
    assert "lora.pt" in said("show", here / "lora.pt")


Usage = namedtuple("Usage", ("total", "used", "free"))


def test_no_room_on_the_disk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10, 9, 1))
    line = said("train", "-c", project(here))
    assert "GB are free there" in line and "free some room" in line


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ('optimizer = "torch.optim.Adamm"', "cannot be imported"),
        ('optimizer = "torch.optim.Adagrad", optimizer_args = { rho = 1.0 }', "does not take these optimizer_args"),
        ('optimizer = "torch.nn.Linear"', "is not a torch.optim.Optimizer"),
    ],
)
@pytest.mark.parametrize("command", [["train"], ["study", "--plan"]])
def test_an_optimizer_that_cannot_be_made_is_said_before_anything_is(
    command: list[str], setting: str, words: str, here: Path
) -> None:
    line = said(*command, "-c", project(here, variant=f"rank = 2, {setting}"))
    assert words in line
    assert not (here / ".vez").exists() and not (here / "studies").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("command", [["train"], ["study"], ["study", "--plan"]])
def test_no_gpu_where_one_was_asked_for(command: list[str], here: Path) -> None:
    line = said(*command, "-c", project(here), "--device", "cuda")
    assert "the device 'cuda' is not on this machine" in line and "vez doctor" in line


def test_nothing_was_made_by_a_mistake(here: Path) -> None:
    said("train", "-c", project(here, variant="rank = 0"))
    assert {path.name for path in here.iterdir()} == {"base", "captions", "images", "vez.toml"}
