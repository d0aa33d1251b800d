"""kohya's settings in vez's fields: what can be said is carried, and all else is listed with the reason."""

import re
from collections.abc import Mapping
from math import ceil, isqrt
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from vez.errors import ConfigError
from vez.kohya_config import blocks, learning
from vez.kohya_config.carried import Carried
from vez.kohya_config.options import BY_NAME, OPTIONS, TABLES, Option, key_of
from vez.kohya_config.read import shown

_OTHER_FAMILIES: Final = re.compile(r"networks\.\w*(flux|sd3|lumina|anima|hunyuan)\w*|(flux|lumina|anima|hunyuan).*")
_LIKE_LORA: Final = re.compile(r"lora-fa|(lycoris/|kohya )?(locon|dylora)|networks\.(lora_fa|dylora)|lycoris\.kohya")
_MOVED: Final = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}
_RANDOM_CROPS: Final = 4  # places for each picture, where kohya's own would be without number
_PATH: Final = re.compile(r"[A-Za-z]:[\\/]|\\\\|[/.~]|.*\\|.*\.(safetensors|ckpt|pt)$")


def carry(
    values: Mapping[str, Any],
    *,
    near: Path,
    samples: int | None = None,
    counted: str = "",
    pictures: int | None = None,
    with_class: bool = False,
    whole: bool = True,
    models: Mapping[str, type[BaseModel]] = TABLES,
) -> Carried:
    """Go through the settings. Raises ConfigError for a value that kohya would refuse, or for another family's LoRA."""
    work = Carried(values, near, samples, counted or str(samples), pictures, with_class, whole, models)
    for name in ("pretrained_model_name_or_path", "vae"):
        _model(work, name)
    _network(work)
    _batch(work)
    same = learning.optimizer(work)
    learning.rates(work, same=same)
    learning.arguments(work, same=same)
    steps = _length(work)
    _schedule(work, steps)
    _intervals(work)
    _dataset(work)
    _without_captions(work)
    for option in OPTIONS:
        if option.name not in work.done:
            _plain(work, option)
    learning.settle(work)
    for unknown in values:
        if unknown not in BY_NAME and unknown not in work.done:
            work.leave(unknown, values[unknown], "vez does not know this option; another script of kohya's may")
    return work


def _plain(work: Carried, option: Option) -> None:
    """An option that one field can say as it is."""
    said = option.name in work.values
    if option.idle:
        if said:
            work.idle.append(option.name)
        return
    value = work.get(option.name) if said else work.default(option.name)
    if value is None or value in option.same:
        return
    key = key_of(option, work.models)
    if key is None:
        if said and value != option.default:
            work.leave(option.name, value, f"vez has no field for this; {option.does}")
        return
    table, _, name = key.partition(".")
    own = work.models[table].model_fields[name].default
    spelled = (option.values or {}).get(str(value).lower(), value)
    if value is False and spelled is False and option.values:
        return  # the key says which kind, and there is none
    if spelled == own and (not said or option.kind == "flag"):
        return
    comment = "" if said else f"kohya's, where its file says nothing; vez's own is {own}"
    if why := work.put(key, spelled, comment):
        work.leave(option.name, value, why)


def _model(work: Carried, option: str) -> None:
    """A model by its name on the hub, or as a file or folder, which may lie on another machine."""
    base, key = work.get(option), key_of(BY_NAME[option], work.models)
    if base is None or key is None:
        return
    comment = ""
    here = next((path for path in (work.near.absolute().parent / base, Path(base)) if _exists(path)), None)
    if base in _MOVED:
        comment, base = f"{base} is gone from the hub; these are the same weights", _MOVED[base]
    elif here is not None:
        base = here.resolve().as_posix()
    elif _PATH.match(base) or (work.near.suffix == ".safetensors" and "/" not in base):
        work.leave(option, base, f"it is not on this machine; mend [project] {key.partition('.')[2]}")
    work.must(option, key, base, comment)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False  # a name that no file can have


def _network(work: Carried) -> None:
    module = work.get("network_module")
    if module is not None and _OTHER_FAMILIES.fullmatch(module.lower()):
        raise ConfigError(f"{work.near} trains {shown(module)}, for a family that vez does not train")
    if module is None and work.whole and "network_dim" not in work.values:
        work.leave("network_module", "not said", "kohya's full fine-tuning has none; vez trains a LoRA")
    same = module in (None, *BY_NAME["network_module"].same)
    if not same:
        work.leave("network_module", module, "vez trains a LoRA (LierLa) instead: another kind of network")
    for name, key in (("network_dim", "variant.rank"), ("network_alpha", "variant.alpha")):
        value = work.get(name)
        comment = "" if value is not None else f"kohya's {name}, where its file says nothing"
        value = work.default(name) if value is None else value
        if value is not None and not same and not _LIKE_LORA.fullmatch(module.lower()):
            work.leave(name, value, "it means something else there; vez's own stands")
            continue
        if name == "network_alpha" and value == 0:
            value, comment = work.tables["variant"].get("rank"), "kohya takes an alpha of 0 for the rank"
        if value is not None:
            work.must(name, key, value, comment)
    blocks.shape(work, like_lora=same or _LIKE_LORA.fullmatch(module.lower()) is not None)


def _batch(work: Carried) -> None:
    batch, parts = (work.get(name) for name in ("train_batch_size", "gradient_accumulation_steps"))
    if batch is not None or work.whole:
        work.must("train_batch_size", "variant.batch", 1 if batch is None else batch)
    if parts not in (None, 1):
        work.must("gradient_accumulation_steps", "variant.accumulate", parts)


def _per_step(work: Carried) -> int:
    """Pictures that one step sees."""
    return int(work.tables["variant"].get("batch", 1) * work.tables["variant"].get("accumulate", 1))


def _per_epoch(work: Carried) -> int | None:
    """kohya's steps of one epoch over the concept's pictures; with buckets each may end with a torn batch."""
    if work.samples is None:
        return None
    batch, parts = (int(work.tables["variant"].get(key, 1)) for key in ("batch", "accumulate"))
    return ceil(ceil(work.samples / batch) / parts)


def _length(work: Carried) -> int | None:
    """Carry how long a run is; returns its steps in vez where they are known."""
    steps, epochs = work.get("max_train_steps"), work.get("max_train_epochs")
    if not work.whole and steps is None and epochs is None:
        return None
    per_epoch = _per_epoch(work)
    if epochs is None:
        comment = "" if steps is not None else "kohya's max_train_steps, where its file says nothing"
        if per_epoch:
            comment += f"{'; ' if comment else ''}one epoch of kohya's is {per_epoch} steps"
        steps = BY_NAME["max_train_steps"].default if steps is None else steps
        work.must("max_train_steps", "study.steps", steps, comment)
        return int(steps)
    if per_epoch is None or work.samples is None:
        work.must("max_train_epochs", "study.epochs", epochs, "set repeats to the N of kohya's folder N_words")
        return None
    twice = ", and with its class pictures twice as many" if work.with_class else ""
    batch: int = _per_step(work)
    seen = work.samples * int(epochs)
    comment = (
        f"pictures × repeats: {work.counted} = {work.samples} an epoch; × {epochs} epochs ÷ batch {batch} = "
        f"{ceil(seen / batch)} steps; "
        f"kohya ends every epoch with what is left of a batch: {per_epoch * epochs} steps{twice}"
    )
    work.must("max_train_epochs", "study.images_seen", seen, comment)
    return -(-seen // batch)


def _schedule(work: Carried, steps: int | None) -> None:
    name = work.get("lr_scheduler") or work.default("lr_scheduler")
    for option, of, key in (
        ("lr_scheduler_num_cycles", "cosine_with_restarts", "variant.cycles"),
        ("lr_scheduler_power", "polynomial", "variant.power"),
    ):
        value = work.get(option)
        if value not in (None, *BY_NAME[option].same) and name != of:
            work.idle.append(option)
        elif value not in (None, *BY_NAME[option].same):
            work.must(option, key, value)
    if name is not None:
        plain = "constant" if name == "constant_with_warmup" else name
        if why := work.put("variant.schedule", plain):
            work.leave("lr_scheduler", name, f"{why}; the learning rates stay as they are")
    warmup = work.values.get("lr_warmup_steps", 0)
    work.done.add("lr_warmup_steps")
    percent = isinstance(warmup, str) and warmup.endswith("%")
    number = work.read("lr_warmup_steps", warmup[:-1] if percent else warmup) / (100 if percent else 1)
    if percent or 0 < number < 1:
        comment = "a share of the steps" if steps is None else f"a share of the {steps} steps: {int(number * steps)}"
        work.must("lr_warmup_steps", "variant.warmup", number, comment)
    elif number:
        work.must("lr_warmup_steps", "variant.warmup", int(number))


def _intervals(work: Carried) -> None:
    """Every so many steps, or epochs: vez counts steps."""
    per_epoch = _per_epoch(work)
    for name in ("save_every_n", "validate_every_n", "sample_every_n"):
        steps, epochs = work.get(f"{name}_steps"), work.get(f"{name}_epochs")
        option, every = (f"{name}_steps", steps) if steps else (f"{name}_epochs", epochs)
        if not every:
            continue
        key = key_of(BY_NAME[option], work.models)
        comment = ""
        if key is None:
            why = f"vez has no field for this; {BY_NAME[option].does}"
        elif option.endswith("epochs") and per_epoch is None:
            why = f"vez's {key.partition('.')[2]} is in steps, and how many an epoch has is not known without pictures"
        else:
            if option.endswith("epochs"):
                every, comment = every * (per_epoch or 1), f"{every} of kohya's epochs"
            why = work.put(key, every, comment)
        if why:
            work.leave(option, work.values[option], why)


def _without_captions(work: Carried) -> None:
    """Whole epochs without captions: the same in vez only where an epoch shows each picture once."""
    name = "caption_dropout_every_n_epochs"
    every = work.get(name)
    if not every:
        return
    key = key_of(BY_NAME[name], work.models)
    if key is None:
        why = f"vez has no field for this; {BY_NAME[name].does}"
    elif every > 1 and (work.pictures is None or work.samples is None):
        why = "vez counts passes over the pictures, kohya epochs; how often one shows a picture is not known here"
    elif every > 1 and work.samples != work.pictures:
        why = f"an epoch of kohya's shows each picture several times ({work.counted}), a pass of vez's once"
    else:
        why = work.put(key, every)
    if why:
        work.leave(name, every, why)


def _dataset(work: Carried) -> None:
    for name in ("train_data_dir", "reg_data_dir", "dataset_config", "caption_extension", "output_name"):
        work.done.add(name)  # the import's, and the writer's
    _resolution(work)
    seed = work.get("seed")
    if seed is not None and (why := work.put("study.seeds", [seed])):
        work.leave("seed", seed, why)
    elif work.whole and seed is None:
        work.leave("seed", "not said", "kohya draws one anew each run; vez trains with seed 0")
    if work.get("random_crop"):
        comment = "kohya's random_crop cuts anew for every sample; vez draws one of so many frozen places"
        work.must("random_crop", "dataset.random_crops", _RANDOM_CROPS, comment)
    share = work.get("validation_split")
    if share and work.pictures is None:
        work.leave("validation_split", share, "vez's held_out is a number of pictures; set it in [dataset.…]")
    elif share:
        held = max(1, round(share * (work.pictures or 0)))
        comment = f"{share:g} of {work.pictures} pictures; kohya's split may train on some of them, vez's never does"
        work.must("validation_split", "dataset.held_out", held, comment)


def _resolution(work: Carried) -> None:
    value = work.values.get("resolution")
    work.done.add("resolution")
    if value is None:
        return
    parts = re.findall(r"\d{1,6}", value) if isinstance(value, str) else value if isinstance(value, list) else [value]
    sides = [work.read("min_bucket_reso", part) for part in parts]
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise ConfigError(f"resolution is {shown(value)} in {work.near}; expected one number, or width,height")
    side, comment = sides[0], ""
    if len(set(sides)) == 2:
        side = max(8, round(isqrt(sides[0] * sides[1]) / 8) * 8)
        comment = f"the side of a square as large as {sides[0]} × {sides[1]}"
    if why := work.put("dataset.resolution", side, comment):
        work.leave("resolution", value, why)
