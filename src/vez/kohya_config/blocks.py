"""kohya's lists of numbers for the U-Net's blocks, and its convolutions' rank, in vez's fields.

As create_network, get_block_dims_and_alphas and get_block_lr_weight in networks/lora.py read them: 25 numbers for
SD 1.x and 2.x, 23 for SDXL; lists of rates that are too short end in ones, and named ones are curves.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Final

from vez.errors import ConfigError
from vez.family import numbered_blocks
from vez.kohya_config.carried import Carried
from vez.kohya_config.read import shown

_LISTS: Final = ("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas")
_RATES: Final = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
_ALL: Final = (*_LISTS, *_RATES, "block_lr_zero_threshold")
_KEY: Final = "network_args."


def shape(work: Carried, *, like_lora: bool) -> None:
    """Carry conv_dim, conv_alpha and what is said of blocks. Raises ConfigError for lists that kohya would refuse."""
    said = {name: work.values[_KEY + name] for name in _ALL if _KEY + name in work.values}
    work.done.update(_KEY + name for name in said)
    conv = {name: work.get(_KEY + name) for name in ("conv_dim", "conv_alpha")}
    if not like_lora:
        for name, value in {**{k: v for k, v in conv.items() if v is not None}, **said}.items():
            work.leave(_KEY + name, value, "it means something else there")
        return
    if conv["conv_dim"] == 0 and "conv_block_dims" not in said:
        work.must("network_args.conv_dim", "variant.resnets", True, "kohya's conv_dim = 0 adapts no 3×3 convolution")
    if conv["conv_dim"]:
        comment = "kohya's conv_alpha, where its file says nothing" if conv["conv_alpha"] is None else ""
        alpha = 1.0 if conv["conv_alpha"] is None else conv["conv_alpha"] or float(conv["conv_dim"])
        work.must("network_args.conv_dim", "variant.conv_rank", conv["conv_dim"])
        work.must("network_args.conv_alpha", "variant.conv_alpha", alpha, comment)
    elif conv["conv_alpha"] is not None and "conv_block_dims" not in said:
        work.idle.append("network_args.conv_alpha")
    if "block_dims" not in said and not set(_RATES) & set(said):
        work.idle.extend(_KEY + name for name in said)  # kohya passes over them
        return
    table = _joined(_entries(work, said, conv["conv_alpha"]))
    if table and (why := work.put("variant.blocks", table)):
        for name, value in said.items():
            work.leave(_KEY + name, value, why)


def _entries(work: Carried, said: Mapping[str, Any], conv_alpha: float | None) -> dict[str, dict[str, Any]]:
    """What each block has otherwise than the rest, by its name."""
    xl = _is_xl(work, said)
    names, own = numbered_blocks(xl=xl), work.tables["variant"]
    rank, conv = int(own.get("rank", 4)), int(own.get("conv_rank", 0))
    alpha = float(own.get("alpha", 1.0))
    conv_alpha = float(own.get("conv_alpha", 1.0 if conv_alpha is None else conv_alpha))
    dims = _list(work, said, "block_dims", [rank] * len(names), int)
    alphas = _list(work, said, "block_alphas", [alpha] * len(names), float)
    conv_dims = _list(work, said, "conv_block_dims", [conv] * len(names), int)
    conv_alphas = _list(work, said, "conv_block_alphas", [conv_alpha] * len(names), float)
    if "conv_block_dims" not in said:
        conv_alphas = [conv_alpha] * len(names)
    entries = {}
    for i, (name, lr) in enumerate(zip(names, _rates(work, said, xl=xl), strict=True)):
        entry: dict[str, Any] = {}
        if lr == 0:
            entry = {"lr": 0.0}
        else:
            entry |= _part("rank", "alpha", (dims[i], alphas[i]), (rank, alpha))
            entry |= _part("conv_rank", "conv_alpha", (conv_dims[i], conv_alphas[i]), (conv, conv_alpha))
            entry |= {"lr": lr} if lr != 1 else {}
        if name:
            entries[name] = entry
    return entries


def _part(
    rank: str, alpha: str, here: tuple[int, float], rest: tuple[int, float]
) -> dict[str, Any]:  # fmt: skip
    """Rank and alpha where they are not the rest's; kohya takes an alpha of 0 for the rank."""
    if here[0] == 0:
        return {rank: 0} if rest[0] else {}
    made = (here[0], here[1] or float(here[0]))
    if made == (rest[0], rest[1] or float(rest[0])):
        return {}
    return {rank: made[0], alpha: made[1]} if made[0] != rest[0] else {alpha: made[1]}


def _list(work: Carried, said: Mapping[str, Any], name: str, default: list[Any], kind: Callable[[Any], Any]) -> Any:
    if name not in said:
        return default
    try:
        numbers = [kind(part) for part in str(said[name]).split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != len(default) or not all(0 <= number < math.inf for number in numbers):
        raise ConfigError(f"{name} is {shown(said[name])} in {work.near}; kohya takes {len(default)} numbers there")
    return numbers


def _rates(work: Carried, said: Mapping[str, Any], *, xl: bool) -> list[float]:
    """What each block's learning rate is times, by kohya's numbers."""
    long, middle = (9, 3) if xl else (12, 1)
    threshold = work.read(_KEY + "block_lr_zero_threshold", said.get("block_lr_zero_threshold", 0.0))
    found: list[float] = []
    for name, count in zip(_RATES, (long, middle, long), strict=True):
        factors = _factors(work, name, str(said[name]), count) if name in said else [1.0] * count
        if name in said:
            factors = [factor if factor > threshold else 0.0 for factor in factors]
        found += factors
    return [1.0, *found, 1.0] if xl else found


def _factors(work: Carried, name: str, text: str, count: int) -> list[float]:
    curve, _, above = text.partition("+")
    share = [i / (count - 1) for i in range(count)] if count > 1 else [1.0]
    curves = {
        "sine": [math.sin(math.pi * x / 2) for x in share],
        "cosine": [math.sin(math.pi * x / 2) for x in reversed(share)],
        "linear": share,
        "reverse_linear": share[::-1],
        "zeros": [0.0] * count,
    }
    try:
        if curve.strip() in curves and name != "mid_lr_weight":
            return [round(value + float(above or 0), 6) for value in curves[curve.strip()]]
        numbers = [float(part or 0) for part in text.split(",")][:count]
    except ValueError:
        numbers = [math.nan]
    if not all(0 <= number < math.inf for number in numbers):
        raise ConfigError(f"{name} is {shown(text)} in {work.near}; expected numbers, or one of {', '.join(curves)}")
    return numbers + [1.0] * (count - len(numbers))


def _is_xl(work: Carried, said: Mapping[str, Any]) -> bool:
    """By how many numbers there are; else by what the file says of its base."""
    lengths = {str(said[name]).count(",") + 1 for name in _LISTS if name in said}
    if lengths & {23, 25}:
        return 23 in lengths
    flag = str(work.values.get("sdxl", "")).lower() in ("true", "1")
    return flag or "xl" in str(work.values.get("pretrained_model_name_or_path", "")).lower()


def _joined(entries: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Levels, and down, mid and up, in one line where all in them is the same."""
    table = dict(entries)
    for depth in (1, 0):
        wider = dict.fromkeys(name.rpartition(".")[0] for name in table if name.count(".") == depth + 1)
        for name in wider:
            inner = [one for one in table if one.startswith(f"{name}.")]
            if all(one.count(".") == depth + 1 for one in inner) and all(
                table[a] == table[b] for a, b in pairwise(inner)
            ):
                table[name] = table[inner[0]]
                for one in inner:
                    del table[one]
    return {name: entry for name, entry in table.items() if entry}
