"""A small CLIP tokenizer, for bases made in tests."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from small import CAPTIONS


def make_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer of about 600 tokens, its merges learned from the captions."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    learned = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    learned.pre_tokenizer = pre_tokenizers.Whitespace()
    learned.train_from_iterator(
        CAPTIONS, trainers.BpeTrainer(vocab_size=200, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = [tuple(merge) for merge in json.loads(learned.to_str())["model"]["merges"]]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [word for a, b in merges if (word := a + b) not in words]
    words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return CLIPTokenizer.from_pretrained(folder)
