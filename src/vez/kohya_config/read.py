"""kohya's settings out of a file: its TOML (--config_file or --dataset_config), kohya_ss's JSON, a saved LoRA's header.

Whatever the file, its settings come out under the names of `vez.kohya_config.options`. Nothing in a file is trusted:
it is read up to a limit, parsed as data, and a value of a kind that no setting has is an error that names it.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from vez.dataset.kohya import number_and_words
from vez.errors import ConfigError
from vez.images.wording import visible
from vez.kohya_config.gui import from_gui
from vez.kohya_config.options import BY_NAME, TABLES

Source = Literal["training config", "settings of the GUI", "dataset config", "saved LoRA"]
_MOST_TEXT: Final = 4 * 2**20  # bytes of a config
_MOST_HEADER: Final = 16 * 2**20  # bytes; a LoRA of every SDXL module has a header of about one MiB
_PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin")
# What a header calls otherwise than the command line does.
_HEADER_NAMES: Final = {
    "sd_model_name": "pretrained_model_name_or_path",
    "vae_name": "vae",
    "debiased_estimation": "debiased_estimation_loss",
    "batch_size_per_device": "train_batch_size",
}
# What a header says of the run as it went; nothing to be set.
_FACTS: Final = re.compile(
    r"(new_)?(sd_model|vae)_hash|session_id|training_(started|finished)_at|num_(train|validation|reg)_images|steps|epoch|"
    r"num_(batches_per_epoch|epochs)|total_batch_size|base_model_version|sd_scripts_commit_hash|tag_frequency|bucket_info|datasets|"
    r"(reg_)?dataset_dirs|network_args|optimizer"
)
# Read by the import of the pictures, or a name of what stands elsewhere.
_OF_FOLDERS: Final = frozenset({"image_dir", "class_tokens", "num_repeats", "is_reg", "subsets", "metadata_file"})


@dataclass(frozen=True)
class Folder:
    """A folder of pictures that a file tells of."""

    name: str
    repeats: int
    pictures: int | None
    """None: the file does not say."""
    words: str
    """Its class tokens."""


@dataclass(frozen=True)
class Said:
    """What a file says."""

    path: Path
    source: Source
    values: Mapping[str, Any]
    """By the names of `options`, and by names that are none of kohya's."""
    remarks: tuple[str, ...] = ()
    """What was met while reading."""
    folders: tuple[Folder, ...] = ()
    trigger: str = ""
    noun: str = ""

    @property
    def samples(self) -> int | None:
        """Pictures × repeats of one epoch, where the file tells of both."""
        counts = [folder.pictures * folder.repeats for folder in self.folders if folder.pictures is not None]
        return sum(counts) if counts and len(counts) == len(self.folders) else None

    @property
    def counted(self) -> str:
        """How `samples` comes about, where all is known: ``34 × 10 + 3 × 5``."""
        return " + ".join(f"{folder.pictures} × {folder.repeats}" for folder in self.folders)

    @property
    def pictures(self) -> int | None:
        """Pictures, where the file tells."""
        counts = [folder.pictures for folder in self.folders if folder.pictures is not None]
        return sum(counts) if counts and len(counts) == len(self.folders) else None


def read(path: Path) -> Said:
    """The settings that a file of kohya's holds. Raises ConfigError, in one sentence, for whatever is none."""
    if path.suffix.lower() in _PICKLES:
        raise ConfigError(f"{path} is a pickle, which can run code when read; take the .safetensors file instead")
    if path.suffix.lower() == ".safetensors":
        return _from_header(path, _header(path))
    table = parsed(path)
    if "datasets" in table:
        return _from_dataset(path, table)
    if path.suffix.lower() == ".json":
        values, remarks = from_gui(table)
        said = Said(path, "settings of the GUI", with_arguments(values), remarks)
    else:
        flat: dict[str, Any] = {}
        for key, value in table.items():  # kohya's sections are for the reader's eye only
            flat.update(value if isinstance(value, dict) else {key: value})
        said = Said(path, "training config", with_arguments(flat))
    if not set(said.values) & set(BY_NAME):
        mine = " (it is a vez.toml)" if set(table) <= {*TABLES, "collect"} and table else ""
        raise ConfigError(
            f"{path} says nothing of kohya's{mine}; expected its training or dataset config, the GUI's JSON, or a LoRA"
        )
    return said


def dataset_values(path: Path) -> Said:
    """What a --dataset_config says of the training. Raises ConfigError where it is none."""
    return _from_dataset(path, parsed(path))


def with_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without what is empty, and ``network_args`` and ``optimizer_args`` taken apart."""
    apart: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value in ("", []):
            continue
        if key in ("network_args", "optimizer_args"):
            apart.update({f"{key}.{name}": of for name, of in _arguments(key, value).items()})
        else:
            apart[key] = value
    return apart


def parsed(path: Path) -> dict[str, Any]:
    """The TOML or JSON of a config. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_TEXT + 1)
        if len(data) > _MOST_TEXT:
            raise ConfigError(f"{path} has more than {_MOST_TEXT // 2**20} MiB; no config of kohya's has that many")
        text = data.decode("utf-8-sig")
        table = _json_of(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} cannot be read as kohya's config ({visible(str(error))[:200]}); expected TOML, or the GUI's .json"
        ) from error
    if not isinstance(table, dict):
        raise ConfigError(f"{path} holds a {type(table).__name__}; expected kohya's settings by name")
    return table


def _json_of(text: str) -> Any:
    """What JSON says, in text that a file can hold: JSON may say half of a character. Raises ValueError."""
    return json.loads(json.dumps(json.loads(text), ensure_ascii=False).encode("utf-8", "replace"))


def words(folders: Sequence[Folder]) -> tuple[str, str]:
    """Trigger word and class noun: the first of the class tokens and the others, where all folders have the same."""
    words = {folder.words.strip() for folder in folders}
    trigger, _, noun = next(iter(words)).partition(" ") if len(words) == 1 else ("", "", "")
    return trigger, noun.strip()


def _arguments(key: str, value: Any) -> dict[str, str]:
    """``["conv_dim=8", …]``, or the same in one string, as a table. Raises ConfigError."""
    parts = value.replace('"', "").split() if isinstance(value, str) else value
    if isinstance(parts, dict):
        return {str(name): str(of) for name, of in parts.items()}
    if not isinstance(parts, list) or not all(isinstance(part, str) and "=" in part for part in parts):
        raise ConfigError(f'{key} is {shown(value)}; expected a list as in ["conv_dim=8", "conv_alpha=4"]')
    pairs = (part.split("=", 1) for part in parts)
    return {name.strip(): of.strip().strip("\"'") for name, of in pairs}


def _from_dataset(path: Path, table: Mapping[str, Any]) -> Said:
    """Of each setting, what it comes to in every subset (subset, else dataset, else [general]), where all agree."""
    values: dict[str, list[Any]] = {}
    folders = []
    general = _table(path, table.get("general", {}))
    for dataset in _tables(path, table["datasets"]):
        for subset in _tables(path, dataset.get("subsets", [])):
            effective = {**general, **dataset, **subset}
            is_reg = effective.get("is_reg") is True
            if not is_reg:
                folders.append(_folder(effective))
            for key in effective if not is_reg else ():
                if key not in _OF_FOLDERS:
                    name = {"batch_size": "train_batch_size"}.get(key, key)
                    values.setdefault(name, []).append(effective[key])
    one = {key: of[0] for key, of in values.items() if len(of) == len(folders) and all(v == of[0] for v in of)}
    remarks = tuple(
        f"{visible(key)} differs between subsets ({', '.join(shown(v) for v in of[:4])}); vez has one for all"
        for key, of in values.items()
        if key not in one
    )
    trigger, noun = words(folders)
    return Said(path, "dataset config", with_arguments(one), remarks, tuple(folders), trigger, noun)


def _folder(subset: Mapping[str, Any]) -> Folder:
    repeats, words = subset.get("num_repeats", 1), subset.get("class_tokens", "")
    name = re.split(r"[/\\]", str(subset.get("image_dir", "")).rstrip("/\\"))[-1]
    whole = repeats if isinstance(repeats, int) and not isinstance(repeats, bool) else 1
    return Folder(name, whole, None, words if isinstance(words, str) else "")


def _table(path: Path, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is no dataset config of kohya's: expected a table, found {type(value).__name__}")
    return value


def _tables(path: Path, value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise ConfigError(f"{path} is no dataset config of kohya's: datasets and subsets are lists of tables")
    return [_table(path, entry) for entry in value]


def _header(path: Path) -> dict[str, str]:
    """The metadata of a .safetensors file; of the file nothing but its header is read."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= _MOST_HEADER:
                raise ConfigError(f"{path} is not a safetensors file, or is cut short; download it again")
            data = file.read(length)
        header = _json_of(data.decode("utf-8")) if len(data) == length else None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({visible(str(error))[:120]}); download it again") from error
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ConfigError(f"{path} is not a safetensors file, or is cut short; download it again")
    return {key: value for key, value in metadata.items() if isinstance(value, str)}


def _from_header(path: Path, metadata: Mapping[str, str]) -> Said:
    said = {key[3:]: value for key, value in metadata.items() if key.startswith("ss_")}
    if not said:
        raise ConfigError(
            f"{path} tells nothing of its training (no ss_ metadata: stripped, or another tool's); give kohya's config"
        )
    values: dict[str, Any] = {}
    for key, value in said.items():
        if value != "None" and not _FACTS.fullmatch(key):
            values.setdefault(_HEADER_NAMES.get(key, key), value)
    for dataset in _json(said.get("datasets"), list)[:1]:  # of a --dataset_config; the settings of its first dataset
        subset = (dataset.get("subsets") or [{}])[0] if isinstance(dataset, dict) else {}
        for key, value in {**dataset, **subset}.items() if isinstance(subset, dict) else ():
            name = _HEADER_NAMES.get(key, key)
            if name in BY_NAME and value is not None:
                values.setdefault(name, value)
    values["network_args"] = _json(said.get("network_args"), dict)
    optimizer = said.get("optimizer", "None")
    if optimizer != "None":
        values["optimizer_type"], values["optimizer_args"] = _optimizer(optimizer)
    folders = _counted(_json(said.get("dataset_dirs"), dict))
    trigger, noun = words(folders)
    remarks = []
    if said.get("steps", "") not in ("", said.get("max_train_steps")):
        remarks.append(f"this file was saved at step {visible(said['steps'])[:20]}, before the end of its run")
    trigger = trigger or metadata.get("modelspec.trigger_phrase", "").strip()
    return Said(path, "saved LoRA", with_arguments(values), tuple(remarks), tuple(folders), trigger, noun)


def _optimizer(text: str) -> tuple[str, dict[str, str]]:
    """``torch.optim.adamw.AdamW(weight_decay=0.1,betas=(0.9, 0.99))`` → the class's name and its arguments."""
    name, _, arguments = text.partition("(")
    parts = re.split(r",(?=\s*[A-Za-z_]\w*=)", arguments.removesuffix(")"))
    pairs = (part.split("=", 1) for part in parts if "=" in part)
    return name.rpartition(".")[2], {key.strip(): value.strip() for key, value in pairs}


def _counted(folders: Mapping[str, Any]) -> list[Folder]:
    found = []
    for name, of in folders.items():
        repeats, pictures = (of.get("n_repeats"), of.get("img_count")) if isinstance(of, dict) else (None, None)
        if isinstance(repeats, int) and isinstance(pictures, int) and repeats > 0 and pictures > 0:
            words = (number_and_words(name) or (0, ""))[1] if "_" in name else ""
            found.append(Folder(name, repeats, pictures, words))
    return found


def _json(text: str | None, kind: type) -> Any:
    """What a header holds as JSON; empty where it is not of the kind."""
    try:
        value = _json_of(text) if text else kind()
    except (ValueError, RecursionError):
        return kind()
    return value if isinstance(value, kind) else kind()


def shown(value: Any) -> str:
    """A value in one line that is safe to print, cut after 80 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = visible(text)
    return text if len(text) <= 80 else f"{text[:77]}…"
