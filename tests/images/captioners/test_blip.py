from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from thin_captioners import WORDS, pictures
from transformers.utils import logging

import vez.demo
from vez.errors import BaseModelError
from vez.images.captioners.blip import Blip, prepare

SHIPPED = Path(vez.demo.__file__).parent / "blip"


def shipped_pictures() -> list[Image.Image]:
    files = sorted((Path(vez.demo.__file__).parent / "project").rglob("*.jpg"))
    files += sorted((Path(vez.demo.__file__).parent / "project").rglob("*.png"))
    return [Image.open(file).convert("RGB") for file in files[:9]]


def test_blip_says_the_same_twice_and_in_any_batch(blip_folder: Path) -> None:
    blip, images = Blip(blip_folder, batch=2), pictures(5)
    captions = blip.caption(images)
    assert len(captions) == 5 and captions == Blip(blip_folder, batch=5).caption(images)
    assert all(word in WORDS for caption in captions for word in caption.split())
    assert not any("[" in caption for caption in captions)
    assert blip.caption([]) == []


def test_the_blip_in_the_package_says_the_same_one_by_one_and_eight_at_once() -> None:
    images = shipped_pictures()
    one, eight = Blip(SHIPPED, batch=1).caption(images), Blip(SHIPPED, batch=8).caption(images)
    assert one == eight and len(set(one)) > 1 and all(one)
    assert Blip(SHIPPED, batch=8).caption(images[::-1]) == one[::-1]


def test_it_computes_in_float32_and_shows_no_bar(blip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.is_progress_bar_enabled()
    blip = Blip(blip_folder)
    assert {p.dtype for p in blip._model.parameters()} == {torch.float32}
    assert logging.is_progress_bar_enabled() == before and "Loading" not in capfd.readouterr().err


def test_an_absent_captioner_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="write the captions by hand"):
        Blip(tmp_path)


def test_weights_that_are_missing_are_not_made_up(blip_folder: Path, tmp_path: Path) -> None:
    for path in blip_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in weights if "vision_model.encoder" in name)
    save_file({k: v for k, v in weights.items() if k != gone}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseModelError, match=r"lacks .*vision_model"):
        Blip(tmp_path)


def test_only_safetensors_are_read(blip_folder: Path, tmp_path: Path) -> None:
    for path in blip_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        Blip(tmp_path)


def test_pictures_are_prepared_as_clip_does() -> None:
    # white and black in CLIP's units: (1 - mean) / std and -mean / std of its first channel
    white, black = (prepare(Image.new("RGB", (5, 9), colour), 8) for colour in ("white", "black"))
    assert white.shape == (3, 8, 8) and white.dtype == np.float32
    assert white[0, 0, 0] == pytest.approx(1.9303, abs=1e-3) and black[0, 0, 0] == pytest.approx(-1.7923, abs=1e-3)
