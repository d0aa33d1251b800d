"""The tables of vez.toml: frozen pydantic models that refuse unknown keys; the text under a field is its documentation.

`load` reads the file; every mistake becomes one `ConfigError` sentence that names the key and what may stand there.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from vez.config.block import Block
from vez.config.data import (
    PICTURE_CHECKS,
    WORD_CHECKS,
    CheckName,
    Checks,
    Collect,
    CropName,
    Dataset,
    Exclusion,
    Override,
    Project,
    Rule,
    Waiver,
    WordCheckName,
)
from vez.config.study import Checkpointing, Precision, Prompt, Quantize, Sampling, Study
from vez.config.table import Name, Table
from vez.config.variant import Variant
from vez.errors import ConfigError

__all__ = [
    "PICTURE_CHECKS",
    "WORD_CHECKS",
    "Block",
    "CheckName",
    "Checkpointing",
    "Checks",
    "Collect",
    "Config",
    "CropName",
    "Dataset",
    "Exclusion",
    "Override",
    "Precision",
    "Project",
    "Prompt",
    "Quantize",
    "Rule",
    "Sampling",
    "Study",
    "Variant",
    "Waiver",
    "WordCheckName",
    "load",
]


class Config(Table):
    """The whole of vez.toml, and the folder it lies in."""

    project: Project
    """[project]"""
    collect: Collect = Collect()
    """[collect]"""
    dataset: dict[Name, Dataset] = Field(default_factory=dict)
    """[dataset.<name>]"""
    study: dict[Name, Study] = Field(default_factory=dict)
    """[study.<name>]"""
    root: Path = Field(default=Path("."), exclude=True)
    """Folder of vez.toml: what its paths are relative to. Not a key of the file."""

    def source(self, name: str) -> str:
        """A model's name as it can be loaded: a file or folder beside vez.toml with its path, others as they are."""
        return str(self.root / name) if name != "tiny" and (self.root / name).exists() else name

    @model_validator(mode="after")
    def _datasets_exist(self) -> Self:
        for study_name, study in self.study.items():
            for name, variant in study.variant.items():
                if variant.dataset not in self.dataset:
                    known = ", ".join(self.dataset) or "none"
                    raise ValueError(
                        f"[study.{study_name}.variant.{name}] learns from the dataset {variant.dataset!r}, "
                        f"but there is no [dataset.{variant.dataset}]; known are: {known}"
                    )
                if self.dataset[variant.dataset].role == "class":
                    raise ValueError(
                        f"[study.{study_name}.variant.{name}] learns from [dataset.{variant.dataset}], whose role is "
                        '"class": such pictures only go beside a concept\'s; name a dataset of the role "concept"'
                    )
                if variant.prior is not None and getattr(self.dataset.get(variant.prior), "role", "") != "class":
                    known = ", ".join(d for d, recipe in self.dataset.items() if recipe.role == "class") or "none"
                    raise ValueError(
                        f"[study.{study_name}.variant.{name}] has the prior {variant.prior!r}, which is no dataset of "
                        f'the role "class"; known are: {known}'
                    )
                if variant.masked and self.dataset[variant.dataset].masks is None:
                    raise ValueError(
                        f"[study.{study_name}.variant.{name}] is masked, but [dataset.{variant.dataset}] has no masks; "
                        'set its masks = "alpha", or a folder of them'
                    )
        return self


def load(path: Path) -> Config:
    """Read and check a vez.toml; ``Config.root`` becomes its folder. Raises ConfigError (one sentence)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no {path}; make one with `vez init`") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    if "root" in table:
        raise ConfigError(f'{path} has an unknown key "root"; the folder of the file is the root')
    try:
        return Config.model_validate({**table, "root": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_sentence(error, table)}") from error


def _sentence(error: ValidationError, table: dict[str, Any]) -> str:
    """The first mistake in words, and how many more there are."""
    details = error.errors(include_url=False)
    # An unknown key first: it is often why another is missing.
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _one(first) + more


def _one(detail: ErrorDetails) -> str:
    place = [str(part) for part in detail["loc"] if not str(part).startswith(("literal[", "constrained-", "function-"))]
    if place[-1:] == ["[key]"]:  # pydantic's way of saying that the key itself is wrong
        where = ".".join(place[:-2])
        return f"[{where}]: the name {place[-2]!r} cannot be a folder's; use letters, digits, dot, dash and underscore"
    key, where = (place[-1], ".".join(place[:-1])) if place else ("", "")
    inside = f"[{where}]" if where else "the top of the file"
    match detail["type"]:
        case "extra_forbidden":
            known = _keys(place[:-1])
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
            return f'{inside} has no key "{key}"; {hint}'
        case "missing":
            return f'{inside} lacks the key "{key}"'
        case "value_error":
            return f"{'[' + '.'.join(place) + ']: ' if place else ''}{detail['ctx']['error']}"
        case _:
            said = detail["msg"].replace("Input should", "it should").replace("String should", "it should")
            return f'{inside}: "{key}" cannot be {detail["input"]!r}; {said}'


def _keys(place: list[str]) -> list[str]:
    """The keys that the table at ``place`` may have, found by walking the models along it."""
    model: type[BaseModel] = Config
    for part in place:
        inner = model.model_fields.get(part)
        if inner is not None:
            model = next((m for m in _models(inner.annotation)), model)
    return [name for name in model.model_fields if name != "root"]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
