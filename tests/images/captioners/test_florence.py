import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from thin_captioners import FLORENCE_SIDE, pictures
from transformers import BartTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.florence2.processing_florence2 import Florence2Processor

from vez.errors import BaseModelError
from vez.images.captioners.florence import Florence


@pytest.mark.parametrize(("detailed", "task"), [(False, "<CAPTION>"), (True, "<DETAILED_CAPTION>")])
def test_it_asks_as_transformers_own_processor_does(florence_folder: Path, detailed: bool, task: str) -> None:
    florence = Florence(florence_folder, detailed=detailed)
    tokenizer = BartTokenizer.from_pretrained(florence_folder)
    shape = CLIPImageProcessorPil(
        size={"height": FLORENCE_SIDE, "width": FLORENCE_SIDE},
        resample=Image.Resampling.BICUBIC,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    shape.image_seq_length = florence._places
    theirs = Florence2Processor(shape, tokenizer)(images=pictures(2), text=[task] * 2, return_tensors="pt")
    ours = florence.ask(pictures(2))
    assert florence._places == (FLORENCE_SIDE // 8) ** 2 + 1
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    assert torch.equal(ours["attention_mask"], theirs["attention_mask"])
    assert torch.allclose(ours["pixel_values"], theirs["pixel_values"], atol=1e-5)


def test_florence_says_the_same_twice_and_in_any_batch(florence_folder: Path) -> None:
    images = pictures(5)
    said = Florence(florence_folder, batch=2).caption(images)
    assert said == Florence(florence_folder, batch=5).caption(images)
    assert said == Florence(florence_folder, batch=1).caption(images[::-1])[::-1]
    assert len(said) == 5 and any(said) and Florence(florence_folder).caption([]) == []
    for caption in said:
        assert caption == " ".join(caption.split()) and not caption.endswith(".")
        assert not any(token in caption for token in ("<s>", "</s>", "<pad>", "<image>"))


def test_the_size_of_pictures_is_read_wherever_transformers_keeps_it(florence_folder: Path, tmp_path: Path) -> None:
    for path in florence_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "preprocessor_config.json").unlink()
    kept = {"image_processor": {"size": {"height": 32, "width": 32}}}
    (tmp_path / "processor_config.json").write_text(json.dumps(kept))
    assert Florence(tmp_path)._size == 32
    (tmp_path / "processor_config.json").unlink()
    for row in ({"size": {"height": 32, "width": 64}}, {"size": {"height": -1, "width": -1}}, {"size": 7}, {}, []):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(row))
        with pytest.raises(BaseModelError, match="preprocessor_config"):
            Florence(tmp_path)


def test_weights_that_are_missing_are_not_made_up(florence_folder: Path, tmp_path: Path) -> None:
    for path in florence_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    save_file({f"davit.{name}": w for name, w in weights.items()}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseModelError, match="lacks"):
        Florence(tmp_path)
