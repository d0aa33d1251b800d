"""What is read out of the text encoders: clip skip, captions in pieces, SDXL's two encoders; against diffusers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from theirs import parts_of, texts_of, tokenizers_of
from vez import base as bases
from vez.base import Base
from vez.errors import BaseModelError

CAPTIONS = ["a girl wearing zolka in the snow", "", "zolka, a doll " * 60]


def kohya_ids(base: Base, caption: str, *, pieces: int, which: int = 0) -> Tensor:
    """By hand, as kohya's get_input_ids cuts them: (pieces, 77)."""
    tokenizer, pad = tokenizers_of(base)[which], base.pads[which]
    end = tokenizer.eos_token_id
    ids = tokenizer(caption, truncation=True, max_length=75 * pieces + 2).input_ids
    ids += [pad] * (75 * pieces + 2 - len(ids))
    rows = []
    for i in range(1, 75 * pieces + 2 - 77 + 2, 75):
        row = [ids[0], *ids[i : i + 75], ids[-1]]
        if pad != end:
            row[-1] = end if row[-2] not in (end, pad) else row[-1]
            row[1] = end if row[1] == pad else row[1]
        rows.append(row)
    return torch.tensor(rows)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
@pytest.mark.parametrize("tokens", [75, 150, 225])
@pytest.mark.parametrize("skip", [1, 2])
def test_pieces_are_encoded_and_joined_as_kohya_does(
    family_folders: dict[str, Path], kind: str, tokens: int, skip: int
) -> None:
    base = bases.load(str(family_folders[kind]), tokens=tokens, clip_skip=skip)
    (encoder,) = texts_of(base)
    pieces = tokens // 75
    states = bases.encode_text(base, CAPTIONS).states
    assert states.shape[1] == tokens + 2
    for caption, ours in zip(CAPTIONS, states, strict=True):
        ids = kohya_ids(base, caption, pieces=pieces)
        if pieces == 1:
            ids = bases.tokenize(base, [caption])
        with torch.no_grad():
            hidden = encoder(input_ids=ids, output_hidden_states=True).hidden_states[-skip]
            hidden = encoder.final_layer_norm(hidden)
        parts = [hidden[0, :1], *(piece[1:76] for piece in hidden), hidden[-1, -1:]]
        torch.testing.assert_close(ours, torch.cat(parts), rtol=1e-5, atol=1e-6)


def test_a_long_caption_is_cut_where_the_pieces_end(family_folders: dict[str, Path]) -> None:
    long = "zolka " * 300
    for tokens in (75, 150, 225):
        base = bases.load(str(family_folders["sd1"]), tokens=tokens)
        ids = bases.tokenize(base, [long, long + " doll"])
        assert torch.equal(ids[0], ids[1]) and ids.shape == (2, 77 * tokens // 75)
        pieces = ids[0].view(-1, 77)
        assert set(pieces[:, 0].tolist()) == {base.tokenizer.start}
        assert set(pieces[:, -1].tolist()) == {base.tokenizer.end}


@pytest.mark.parametrize(
    ("tokens", "skip", "said"), [(100, None, "75, 150"), (75, 4, "clip_skip is 4"), (75, 0, "is 0")]
)
def test_what_cannot_be_read_is_refused(
    family_folders: dict[str, Path], tokens: int, skip: int | None, said: str
) -> None:
    with pytest.raises(BaseModelError, match=said):
        bases.load(str(family_folders["sd1"]), tokens=tokens, clip_skip=skip)


def test_settings_make_it_another_base(family_folders: dict[str, Path]) -> None:
    path = str(family_folders["sd1"])
    ids = [bases.load(path, **options).sha256 for options in ({}, {"clip_skip": 2}, {"tokens": 150}, {"clip_skip": 1})]  # type: ignore[arg-type]
    assert len(set(ids)) == 3 and ids[0] == ids[3]


def test_sdxl_conditioning_is_diffusers_own(family_folders: dict[str, Path]) -> None:
    pipeline = StableDiffusionXLPipeline(scheduler=None, **parts_of(base := bases.load(str(family_folders["sdxl"]))))
    states, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, do_classifier_free_guidance=False, device="cpu")
    ours = bases.encode_text(base, CAPTIONS)
    assert ours.pooled is not None and ours.states.shape == (3, 77, 192)
    torch.testing.assert_close(ours.states, states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.pooled, pooled, rtol=1e-5, atol=1e-5)


def test_sdxl_in_pieces(family_folders: dict[str, Path]) -> None:
    base = bases.load(str(family_folders["sdxl"]), tokens=150)
    states = bases.encode_text(base, CAPTIONS)
    assert states.states.shape == (3, 152, 192)
    for caption, ours, pooled in zip(CAPTIONS, states.states, states.pooled, strict=True):  # type: ignore[arg-type]
        halves = []
        for which, encoder in enumerate(texts_of(base)):
            with torch.no_grad():
                out: Any = encoder(input_ids=kohya_ids(base, caption, pieces=2, which=which), output_hidden_states=True)
            hidden = out.hidden_states[-2]
            halves.append(torch.cat([hidden[0, :1], hidden[0, 1:76], hidden[1, 1:77]]))
        torch.testing.assert_close(ours, torch.cat(halves, dim=-1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(pooled, out.text_embeds[0], rtol=1e-5, atol=1e-6)
