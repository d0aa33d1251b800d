import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from vez.errors import BaseModelError, DataError
from vez.metrics import embed
from vez.metrics.embed import Clip, Dino
from vez.metrics.rules import WEIGHT
from vez.metrics.texts import PREFIX

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}


def picture(path: Path, width: int, height: int, seed: int = 0) -> Path:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize(("width", "height"), [(32, 32), (128, 128), (60, 40), (40, 66), (17, 20)])
def test_prepared_pixels_are_transformers_own(width: int, height: int, tmp_path: Path) -> None:
    image = Image.open(picture(tmp_path / "p.png", width, height))
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = np.asarray(theirs(images=image, return_tensors="np")["pixel_values"][0])
    assert np.abs(embed.prepare(image, 32) - expected).max() < 1e-5


def test_prepared_pixels_by_hand() -> None:
    grey = embed.prepare(Image.new("L", (50, 50), 128), 8)
    assert grey.shape == (3, 8, 8)
    expected = (128 / 255 - np.array([0.48145466, 0.4578275, 0.40821073])) / [0.26862954, 0.26130258, 0.27577711]
    assert grey[:, 3, 3] == pytest.approx(expected, abs=1e-6)


def test_features_are_unit_vectors_with_clips_own_cosine(clip: Clip, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png", 64, 64, i) for i in range(3)]
    texts = ["ab", "a cat"]
    images, words = embed.image_features(clip, paths, batch=2), embed.text_features(clip, texts)
    assert images.shape == (3, 16) and words.shape == (2, 16) and images.dtype == np.float32
    assert np.linalg.norm(images, axis=1) == pytest.approx(np.ones(3), abs=1e-6)
    pixels = torch.from_numpy(np.stack([embed.prepare(Image.open(path), 32) for path in paths]))
    tokens = clip.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        out = clip.model(pixel_values=pixels, **tokens)
    logits = out.logits_per_image.numpy() / clip.model.logit_scale.exp().item()
    assert images @ words.T == pytest.approx(logits, abs=1e-5)


def test_a_long_text_keeps_its_end_token(clip: Clip) -> None:
    # Cut without the end token, every long text is the same: read at the start token (torchmetrics #2883)
    one, other = embed.text_features(clip, ["abcdefghij" * 3, "zyxwvutsrq" * 3])
    assert abs(float(one @ other)) < 0.9999
    cut, whole = embed.text_features(clip, ["abcdefghijklmnop", "abcdefghij"])  # 10 tokens fit between start and end
    shortened = clip.tokenizer("abcdefghijklmnop", truncation=True, max_length=12).input_ids
    assert len(shortened) == 12 and shortened[-1] == clip.tokenizer.eos_token_id
    assert not np.array_equal(cut, whole)  # its tenth token is not the word's last


def test_a_text_does_not_depend_on_its_company(clip: Clip) -> None:
    alone = embed.text_features(clip, ["a"])
    beside = embed.text_features(clip, ["a", "a much longer"])
    assert alone[0] == pytest.approx(beside[0], abs=1e-6)


def test_nothing_gives_nothing(clip: Clip) -> None:
    assert embed.text_features(clip, []).shape == embed.image_features(clip, []).shape == (0, 16)


def test_the_cache_is_by_content_and_model(clip: Clip, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    paths = [picture(tmp_path / "a.png", 40, 40), picture(tmp_path / "b.png", 40, 40, 1)]
    first = embed.image_features(clip, paths, cache=cache)
    kept = sorted(cache.iterdir())
    assert len(kept) == 2 and all(file.suffix == ".npy" for file in kept)
    # what is read is what lies there: a changed vector shows, a damaged file is made again
    vector = np.full(16, 0.25, dtype=np.float32)
    np.save(kept[0], vector)
    again = embed.image_features(clip, paths, cache=cache)
    assert any(np.array_equal(row, vector) for row in again)
    kept[0].write_bytes(b"\x93NUMPY torn")
    assert np.allclose(embed.image_features(clip, paths, cache=cache), first)
    copy = shutil.copy(paths[0], tmp_path / "copy.png")
    assert np.array_equal(embed.image_features(clip, [Path(copy)], cache=cache)[0], first[0])
    assert len(list(cache.iterdir())) == 2


def test_other_weights_are_another_clip(clip: Clip, clip_folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(clip_folder, tmp_path / "other"))
    assert embed.load(str(other)).sha256 == clip.sha256
    weights = load_file(other / "model.safetensors")
    weights["logit_scale"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert embed.load(str(other)).sha256 != clip.sha256


def test_what_is_no_clip_or_no_picture_is_refused(clip: Clip, clip_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        embed.load(str(tmp_path))
    half = Path(shutil.copytree(clip_folder, tmp_path / "half"))
    weights = load_file(half / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"lacks 'visual_projection\.weight'"):
        embed.load(str(half))
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png is not a picture"):
        embed.image_features(clip, [tmp_path / "x.png"])
    with pytest.raises(DataError, match="cannot be read"):
        embed.image_features(clip, [tmp_path / "none.png"])


def test_which_clip_judges_which_base() -> None:
    assert Path(embed.clip_for("tiny")).parts[-2:] == ("demo", "clip")
    assert embed.clip_for("some/base") == embed.PUBLISHED


def test_the_published_formula_computed_by_another_program(clip: Clip, tmp_path: Path) -> None:
    """2.5 · max(cos(picture, "A photo depicts " + text), 0) with transformers' own processor, tokenizer and towers."""
    path = picture(tmp_path / "p.png", 90, 60, 3)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    for text in ("a cat", "ab " * 20):
        pixels = processor(images=Image.open(path), return_tensors="pt").pixel_values
        tokens = clip.tokenizer([PREFIX + text], truncation=True, max_length=12, return_tensors="pt")
        with torch.inference_mode():
            out = clip.model(pixel_values=pixels, **tokens)
        cosine = torch.nn.functional.cosine_similarity(out.image_embeds, out.text_embeds).item()
        ours = embed.image_features(clip, [path])[0] @ embed.text_features(clip, [PREFIX + text])[0]
        assert WEIGHT * max(float(ours), 0.0) == pytest.approx(2.5 * max(cosine, 0.0), abs=1e-5)
    assert PREFIX == "A photo depicts " and WEIGHT == 2.5


def test_dino_sees_what_transformers_own_processor_prepares(dino: Dino, dino_folder: Path, tmp_path: Path) -> None:
    path = picture(tmp_path / "p.png", 90, 60, 3)
    size = {"shortest_edge": 32}  # 28 · 256 / 224
    processor = BitImageProcessorPil(size=size, crop_size={"height": 28, "width": 28}, do_convert_rgb=True,
                                     image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])  # fmt: skip
    steps = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), True)
    expected = processor(images=Image.open(path), return_tensors="pt", resample=3, **steps).pixel_values
    with Image.open(path) as image:
        prepared = dino.prepare(image)
    assert prepared.shape == (3, 28, 28) and np.abs(prepared - expected.numpy()[0]).max() < 1e-5
    model = Dinov2Model.from_pretrained(dino_folder).eval()
    with torch.inference_mode():
        token = model(pixel_values=expected).last_hidden_state[0, 0].numpy()
    vector = embed.image_features(dino, [path], cache=tmp_path / "cache")[0]
    assert vector == pytest.approx(token / np.linalg.norm(token), abs=1e-5)
    assert np.array_equal(embed.image_features(dino, [path], cache=tmp_path / "cache")[0], vector)


def test_clip_and_dino_share_a_cache_and_no_vector(clip: Clip, dino: Dino, tmp_path: Path) -> None:
    path = picture(tmp_path / "p.png", 40, 40)
    for encoder in (clip, dino):
        embed.image_features(encoder, [path], cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_dino_is_asked_for_its_class_token_whatever_its_registers(tmp_path: Path) -> None:
    config = Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3)
    torch.manual_seed(2)
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    registered = embed.load_dino(str(tmp_path))
    pixels = torch.from_numpy(registered.prepare(Image.new("RGB", (30, 30), "red")))[None]
    with torch.inference_mode():
        assert registered.patches(pixels).shape == (1, 16, 24) and registered.see(pixels).shape == (1, 24)


def test_what_is_no_dino_is_refused(clip_folder: Path, dino_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="is a clip, not a DINOv2"):
        embed.load_dino(str(clip_folder))
    with pytest.raises(BaseModelError, match=r"the DINOv2 .* cannot be loaded"):
        embed.load_dino(str(tmp_path))
    half = Path(shutil.copytree(dino_folder, tmp_path / "half"))
    weights = load_file(half / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, half / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseModelError, match=r"lacks 'layernorm\.weight'"):
        embed.load_dino(str(half))


@pytest.mark.parametrize("kind", ["clip", "dino"])
def test_the_subject_is_found_wherever_it_lies_and_the_ground_does_not_count(
    kind: str, clip: Clip, dino: Dino, tmp_path: Path
) -> None:
    """Each patch of a picture that was drawn with the subject's pixels has that patch's vector, if it sees itself."""
    encoder = clip if kind == "clip" else dino
    subject, mask = tmp_path / "s.png", tmp_path / "m.png"
    picture(subject, 64, 64, 1)
    white = Image.new("L", (32, 32))
    white.paste(255, (0, 0, 16, 32))
    white.save(mask)
    ground = Image.open(subject).convert("RGB")
    ground.paste((20, 90, 40), (32, 0, 64, 64))
    ground.save(tmp_path / "other-ground.png")
    nothing = Image.open(subject).convert("RGB")
    nothing.paste((20, 90, 40), (0, 0, 32, 64))
    nothing.save(tmp_path / "no-subject.png")
    paths = [subject, tmp_path / "other-ground.png", tmp_path / "no-subject.png"]
    same, moved, without = embed.foreground_likeness(encoder, paths, [(subject, mask)], cache=tmp_path / "cache")[:, 0]
    assert same == pytest.approx(1, abs=1e-5) and same > moved
    kept = sorted((tmp_path / "cache").iterdir())
    again = embed.foreground_likeness(encoder, paths, [(subject, mask)], cache=tmp_path / "cache")
    assert len(kept) == 3 and again[:, 0] == pytest.approx([same, moved, without])
    Image.new("L", (32, 32), 255).save(mask)  # another mask is another question
    whole = embed.foreground_likeness(encoder, paths, [(subject, mask)], cache=tmp_path / "cache")[:, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 6 and whole[0] == pytest.approx(1, abs=1e-5)
    assert np.all(whole[1:] != [moved, without])
