"""kohya_ss's own JSON: what its GUI makes of it before it calls sd-scripts (kohya_gui/lora_gui.py at 45088f04).

It holds every field of every tab, whether or not it applies. The GUI passes over what is empty, false or zero, so
sd-scripts' own default then holds and not the zero.
"""

import re
import shlex
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from vez.errors import ConfigError

_NAMES: Final = {"max_resolution": "resolution", "optimizer": "optimizer_type"}
# Fields of the GUI itself, of accelerate, of LyCORIS's kinds, and of families that vez has not.
_OWN: Final = re.compile(
    r"LyCORIS_preset|LoRA_type|noise_offset_type|model_list|unit|factor|constrain|rescaled|train_(norm|on_input)|"
    r"decompose_both|bypass_mode|dora_wd|use_(cp|tucker|scalar|wandb)|rank_dropout_scale|no_token_padding|"
    r"num_(cpu_threads_per_process|processes|machines)|multi_gpu|gpu_ids|main_process_port|dynamo_(mode|use_\w+)|"
    r"extra_accelerate_launch_args|stop_text_encoder_training(_pct)?|epoch|lr_warmup|additional_parameters|"
    r"(conv_(dim|alpha)|(conv_)?block_(dims|alphas)|(down|mid|up)_lr_weight|block_lr_zero_threshold)|"
    r"(rank|module)_dropout|loraplus\w*|t5xxl\w*|clip_[lg]\w*|(sd3|flux1?|hunyuan\w*|lumina|anima|chroma)_\w+|"
    r"split_\w+|train_blocks|guidance_scale|discrete_flow_shift|model_prediction_type|timestep_sampling|sigmoid_scale|"
    r"logit_(mean|std)|mode_scale|weighting_scheme|save_(clip|t5xxl)|ae|t5_dropout_rate|pos_emb_\w+|apply_t5_attn_mask|"
    r"sdxl_(no_half_vae|cache_text_encoder_outputs)|lora_network_weights|enable_all_linear|in_dims|"
    r"(img|txt|single)_(attn|mlp|mod)\w*|logging_dir|train_inpainting|lowvram|keep_n_tokens|masked_loss_\w+"
)
_DROPOUTS: Final = ("rank_dropout", "module_dropout")
_BLOCKS: Final = (
    "block_dims",
    "block_alphas",
    "conv_block_dims",
    "conv_block_alphas",
    "down_lr_weight",
    "mid_lr_weight",
    "up_lr_weight",
    "block_lr_zero_threshold",
)
_PLUS: Final = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")


def from_gui(table: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings as the GUI would write them for sd-scripts, and what it ignores. Raises ConfigError."""
    given = {key: value for key, value in table.items() if value not in ("", 0, None, [])}  # False is 0, too
    values = {_NAMES.get(key, key): value for key, value in given.items() if not _OWN.fullmatch(key)}
    values.update(_network(given))
    dropped: tuple[str, ...]
    if given.get("noise_offset_type", "Original") == "Original":
        dropped = ("multires_noise_iterations", "multires_noise_discount")
    else:
        dropped = ("noise_offset", "adaptive_noise_scale", "noise_offset_random_strength")
    for key in dropped:
        values.pop(key, None)
    text_lr, unet_lr = number(given.get("text_encoder_lr", 0)), number(given.get("unet_lr", 0))
    if text_lr == 0:
        values.pop("text_encoder_lr", None)
    if (text_lr == 0) != (unet_lr == 0):
        values["network_train_unet_only" if text_lr == 0 else "network_train_text_encoder_only"] = True
    if "lr_warmup_steps" not in given and (percent := number(given.get("lr_warmup", 0))):
        values["lr_warmup_steps"] = f"{percent:g}%"
    remarks = []
    if epochs := number(given.get("epoch", 0)):
        if not number(given.get("max_train_steps", 0)) and "dataset_config" not in given:
            values.setdefault("max_train_epochs", int(epochs))
        elif "max_train_epochs" not in given:
            remarks.append(
                f"epoch = {epochs:g}: where max_train_steps or dataset_config is given the GUI does not count epochs"
            )
    values.update(_parameters(given.get("additional_parameters", "")))
    return values, tuple(remarks)


def number(value: Any) -> float:
    """A number that may be written as text. Raises ConfigError."""
    try:
        found = float(value)
        if not isfinite(found):
            raise ValueError("not finite")
        return found
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{str(value)[:40]!r} stands where kohya's GUI has a number; mend the file") from error


def _network(given: Mapping[str, Any]) -> dict[str, Any]:
    if "LoRA_type" not in given:
        return {}
    kind = str(given["LoRA_type"])
    wanted: tuple[str, ...] = (*_DROPOUTS, *_BLOCKS, *_PLUS)
    if kind == "Standard":
        module = "networks.lora"
    elif kind == "Kohya LoCon":
        module, wanted = "networks.lora", (*wanted, "conv_dim", "conv_alpha")
    else:
        module, wanted = kind, (*_DROPOUTS, "conv_dim", "conv_alpha")
    arguments = [f"{key}={given[key]}" for key in wanted if key in given]
    return {"network_module": module, "network_args": arguments}


def _parameters(text: Any) -> dict[str, Any]:
    """``--key value`` of the GUI's free field; a key without a value is a switch."""
    try:
        words = shlex.split(text) if isinstance(text, str) else []
    except ValueError as error:
        raise ConfigError(f"additional_parameters cannot be read ({error}): {text[:80]!r}") from error
    found: dict[str, Any] = {}
    key = ""
    for word in words:
        if word.startswith("--"):
            key, _, value = word[2:].partition("=")
            found[key] = value or True
        elif key in ("network_args", "optimizer_args", "lr_scheduler_args"):
            found[key] = [*(found[key] if isinstance(found[key], list) else []), word]
        elif key:
            found[key] = word if found[key] is True else f"{found[key]} {word}"
    return found
