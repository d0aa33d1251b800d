"""Loading a model of transformers from a folder: whole, from safetensors, in float32, without a word on the screen."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging

from vez.errors import BaseModelError


def load_weights(model: Any, tokenizer: Any, folder: Path) -> tuple[Any, Any]:
    """The model of class ``model`` and the tokenizer of class ``tokenizer`` in ``folder``, ready to be asked.

    Raises BaseModelError where one cannot be had, or where the file lacks some of the model's weights: transformers
    would fill them in at random.
    """
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        # float32 whatever the file holds: half precision is slow on a CPU, and its choices depend on the batch
        made, info = model.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
        words = tokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the captioner {str(folder)!r} cannot be loaded: {first}; give a folder that holds a model and its "
            "tokenizer as transformers' save_pretrained writes them, or write the captions by hand"
        ) from error
    finally:
        if bar:
            logging.enable_progress_bar()
    wrong = [*info["missing_keys"], *info["mismatched_keys"]]
    if wrong:
        raise BaseModelError(
            f"the captioner {str(folder)!r} lacks {str(wrong[0])!r} and {len(wrong) - 1} more weights; download it "
            "again, or write the captions by hand"
        )
    return made.eval().requires_grad_(False), words
