"""kohya's optimizer and learning rates in vez's fields: they are carried together or not at all.

A learning rate means what it means to one optimizer: Prodigy's 1 would burn a LoRA under AdamW.
"""

import ast
import re
from typing import Any, Final

from pydantic import ValidationError

from vez.kohya_config.carried import Carried
from vez.kohya_config.options import BY_NAME, key_of

_OF_ADAMW: Final = re.compile(r"(paged)?adamw(8bit|32bit)?")  # one algorithm: its learning rates mean the same
_RATES: Final = ("learning_rate", "unet_lr", "text_encoder_lr")
_ARGUMENT: Final = "optimizer_args."


def optimizer(work: Carried) -> bool:
    """Carry the optimizer; returns whether learning rates mean in vez what they mean in the file."""
    old = {"use_8bit_adam": "AdamW8bit", "use_lion_optimizer": "Lion"}
    said = [name for flag, name in old.items() if work.get(flag)]
    name = work.get("optimizer_type") or (said[0] if said else None)
    if name is None or name.lower() == "adamw":
        return True
    option = BY_NAME["optimizer_type"]
    key = key_of(option, work.models)
    spelled = (option.values or {}).get(name.lower(), name)
    if key and work.put(key, spelled) == "":
        return True
    if _OF_ADAMW.fullmatch(name.lower()):
        work.leave("optimizer_type", name, "vez's AdamW keeps its state in fp32: the same steps, some MB more")
        return True
    work.leave("optimizer_type", name, "vez trains with AdamW, so the learning rates are vez's own and not the file's")
    return False


def rates(work: Carried, *, same: bool) -> None:
    """Carry the learning rates, if they are for the ``same`` optimizer. Raises ConfigError for what is no rate."""
    only_text, only_unet = work.get("network_train_text_encoder_only"), work.get("network_train_unet_only")
    every = work.get("learning_rate")
    unet, text = work.get("unet_lr"), _numbers(work, "text_encoder_lr")
    if not same:
        _leave_rates(work)
    elif work.whole or set(_RATES) & set(work.values):
        comment = "kohya's learning_rate" if every is not None else "kohya's learning_rate where its file says none"
        every = BY_NAME["learning_rate"].default if every is None else every
        work.must("unet_lr", "variant.lr_unet", every if unet is None else unet, comment if unet is None else "")
        work.must("text_encoder_lr", "variant.lr_text", text[0] if text else every, "" if text else comment)
        if text[1:2] not in ([], text[:1]) and not only_unet:
            work.must("text_encoder_lr", "variant.lr_text2", text[1], "of the second text encoder")
        if len(text) > 2:
            work.leave("text_encoder_lr", text, "there are two text encoders at most; their rates were taken")
    if only_unet:
        work.must("network_train_unet_only", "variant.lr_text", 0.0, "network_train_unet_only")
    if only_text:
        work.must("network_train_text_encoder_only", "variant.lr_unet", 0.0, "network_train_text_encoder_only")


def arguments(work: Carried, *, same: bool) -> None:
    """Carry optimizer_args: what has a field of its own, and the others as vez's own optimizer_args."""
    taken: dict[str, Any] = {}
    for name in work.values:
        if not name.startswith(_ARGUMENT) or name == f"{_ARGUMENT}weight_decay":
            continue
        work.done.add(name)
        argument = name.removeprefix(_ARGUMENT)
        value = _literal(work.values[name])
        why = "an argument of another optimizer"
        if same:
            why = _refused(work, {"optimizer_args": {**taken, argument: value}})
            why = why or work.put("variant.optimizer_args", {**taken, argument: value})
        if why:
            work.leave(name, work.values[name], why)
        else:
            taken[argument] = value


def settle(work: Carried) -> None:
    """Where vez cannot have the optimizer with these rates, take it back and the rates with it."""
    why = _refused(work, {})
    if why and "optimizer" in work.tables["variant"]:
        work.leave("optimizer_type", work.tables["variant"]["optimizer"], why)
        for key in ("optimizer", "optimizer_args", "lr_unet", "lr_text", "lr_text2"):
            work.tables["variant"].pop(key, None)
            work.comments.pop(f"variant.{key}", None)
        _leave_rates(work)


def _leave_rates(work: Carried) -> None:
    for name in _RATES:
        if name in work.values:
            work.leave(name, work.values[name], "a learning rate for another optimizer")


def _refused(work: Carried, more: dict[str, Any]) -> str:
    """Why the variant as it is so far, with ``more``, is none; or ""."""
    known = {key: of for key, of in work.tables["variant"].items() if key in work.models["variant"].model_fields}
    try:
        work.models["variant"].model_validate({"dataset": "v1", **known, **more})
    except ValidationError as error:
        return error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    return ""


def _numbers(work: Carried, name: str) -> list[float]:
    """A number, or a list of them, perhaps as text. Raises ConfigError."""
    work.done.add(name)
    value = work.values.get(name, [])
    if isinstance(value, str):
        value = [part for part in re.split(r"[\[\](),\s]+", value) if part]
    return [work.read(name, part) for part in (value if isinstance(value, list) else [value])]


def _literal(value: Any) -> Any:
    """``0.9,0.99`` → [0.9, 0.99], as kohya reads an argument; what is no number, switch or list of them stays text."""
    try:
        found = ast.literal_eval(value) if isinstance(value, str) and len(value) < 200 else value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    if isinstance(found, tuple | list):
        return [of for of in found] if all(isinstance(of, int | float) for of in found) else value
    return found if isinstance(found, bool | int | float) else value
