from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration

from vez import dataset
from vez.config import Config, Project, Rule
from vez.errors import BaseModelError
from vez.events import Done
from vez.images.caption import Blip, blip_source, final_caption, prepare

PROJECT = Project(
    base="tiny", trigger="nosnjaoutfit", noun="folk costume", describes="traditional Serbian folk costume"
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
WORDS = [*SPECIAL, "a", "girl", "in", "folk", "costume", "standing", "on", "set", "of", "stairs"]


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BLIP of two thin layers, saved as the demo's is: model and tokenizer in one folder."""
    import torch

    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), bos_token="[DEC]")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        **tower,
        "vocab_size": len(WORDS),
        "encoder_hidden_size": 16,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
    }
    config = BlipConfig(vision_config={**tower, "image_size": 32, "patch_size": 16}, text_config=text)
    torch.manual_seed(0)
    BlipForConditionalGeneration(config).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(count)]


def test_blip_says_the_same_twice_and_in_any_batch(blip_folder: Path) -> None:
    blip, images = Blip(str(blip_folder), batch=2), pictures(5)
    captions = blip.caption(images)
    assert len(captions) == 5 and captions == Blip(str(blip_folder), batch=5).caption(images)
    assert all(word in WORDS for caption in captions for word in caption.split())
    assert not any("[" in caption for caption in captions)
    assert blip.caption([]) == []


def test_a_build_loads_the_captioner_that_the_configuration_names(blip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i, image in enumerate(pictures(3)):
        image.save(tmp_path / "images" / f"{i}.png")
    recipe = {"images": "images", "resolution": 64, "captioner": str(blip_folder)}
    config = Config.model_validate({"project": PROJECT, "dataset": {"v1": recipe}, "root": tmp_path})
    done = list(dataset.build(config, "v1"))[-1]
    assert isinstance(done, Done)
    made = dataset.load(done.artifact_path)
    squares = [Image.fromarray(made.pixels(row)) for row in made.rows]
    assert [row.machine for row in made.rows] == Blip(str(blip_folder)).caption(squares)


def test_an_absent_captioner_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="write the captions by hand"):
        Blip(str(tmp_path))


def test_pictures_are_prepared_as_clip_does() -> None:
    # white and black in CLIP's units: (1 - mean) / std and -mean / std of its first channel
    white, black = (prepare(Image.new("RGB", (5, 9), colour), 8) for colour in ("white", "black"))
    assert white.shape == (3, 8, 8) and white.dtype == np.float32
    assert white[0, 0, 0] == pytest.approx(1.9303, abs=1e-3) and black[0, 0, 0] == pytest.approx(-1.7923, abs=1e-3)


def test_where_the_captioner_lies(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert blip_source("blip", "tiny", tmp_path).endswith(str(Path("demo") / "blip"))
    assert blip_source("blip", "some/base", tmp_path) == "Salesforce/blip-image-captioning-base"
    assert blip_source("mine", "tiny", tmp_path) == str(tmp_path / "mine")
    assert blip_source("who/what", "tiny", tmp_path) == "who/what"


def test_the_reference_study_s_caption() -> None:
    rules = [Rule(find="in a folk costume", replace="wearing traditional {trigger}")]
    said = "a girl in a folk costume standing on a set of stairs"
    assert final_caption(said, PROJECT, rules=rules) == (
        "nosnjaoutfit, a girl wearing traditional nosnjaoutfit standing on a set of stairs"
    )


@pytest.mark.parametrize(
    ("said", "rules", "prefix", "final"),
    [
        ("a Dress and dresses", [("dress", "{noun}")], True, "nosnjaoutfit, a folk costume and dresses"),
        ("a dress", [("dress", "skirt"), ("skirt", "{trigger}")], False, "a nosnjaoutfit"),
        ("a dress", [("dress", r"\1 \g<0>")], False, r"a \1 \g<0>"),
        ("what? (a dress)", [("(a dress)", "")], False, "what?"),
        ("", [], True, "nosnjaoutfit"),
        ("nosnjaoutfit, a girl", [], True, "nosnjaoutfit, a girl"),
        ("nosnjaoutfits, many", [], True, "nosnjaoutfit, nosnjaoutfits, many"),
        ("  a\n girl ", [], True, "nosnjaoutfit, a girl"),
    ],
)
def test_rules(said: str, rules: list[tuple[str, str]], prefix: bool, final: str) -> None:
    made = [Rule(find=find, replace=replace) for find, replace in rules]
    assert final_caption(said, PROJECT, rules=made, prefix=prefix) == final


@given(st.text())
def test_any_caption_begins_with_the_trigger_in_one_line(said: str) -> None:
    final = final_caption(said, PROJECT)
    assert final.startswith("nosnjaoutfit") and "\n" not in final
    assert final_caption(final, PROJECT) == final
