"""kohya's settings while they are carried over: what each is worth, where it went, and what was left."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from vez.errors import ConfigError
from vez.kohya_config.options import BY_NAME, TABLES, Kind
from vez.kohya_config.read import shown


@dataclass(frozen=True)
class Left:
    """One setting that vez.toml does not say."""

    option: str
    value: str
    why: str

    @property
    def text(self) -> str:
        """The line of the list."""
        return f"{self.option} = {self.value}: {self.why}"


@dataclass(frozen=True)
class Carried:
    """What became of the settings; filled while they are gone through."""

    values: Mapping[str, Any]
    near: Path
    """The file that said them: relative paths are looked for beside it."""
    samples: int | None
    """Pictures × repeats of one epoch; None: not known."""
    counted: str
    """How they were counted: ``34 × 10 + 3 × 5``."""
    pictures: int | None
    with_class: bool
    """There are class pictures: kohya's epochs then have twice the steps."""
    whole: bool
    """The values are all there is, so that kohya's defaults hold for what is not among them."""
    models: Mapping[str, type[BaseModel]]
    tables: dict[str, dict[str, Any]] = field(default_factory=lambda: {name: {} for name in TABLES})
    """Table → key → value."""
    comments: dict[str, str] = field(default_factory=dict)
    """``table.key`` → what to know about it."""
    left: list[Left] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    """Options that need no key in vez."""
    done: set[str] = field(default_factory=set)

    def leave(self, name: str, value: Any, why: str) -> None:
        """List a setting as not carried over."""
        self.left.append(Left(shown(name), shown(value), why))

    def put(self, key: str, value: Any, comment: str = "") -> str:
        """Write a value, if its field takes it; returns "" or why not."""
        table, _, name = key.partition(".")
        info = self.models[table].model_fields.get(name)
        if info is None:
            return f"vez has no {name}"
        try:
            of_field: Any = Annotated[info.annotation, info]
            TypeAdapter(of_field).validate_python(value)
        except ValidationError as error:
            return f"vez's {name} does not take it: {error.errors(include_url=False)[0]['msg']}"
        self.tables[table][name] = value
        if comment:
            self.comments[key] = comment
        return ""

    def must(self, option: str, key: str, value: Any, comment: str = "") -> None:
        """Write a value without which nothing could be said to be the same. Raises ConfigError."""
        if why := self.put(key, value, comment):
            raise ConfigError(f"{option} is {shown(value)} in {self.near}, which cannot be carried over: {why}")

    def get(self, name: str) -> Any:
        """An option's value by its kind; None where nothing is said. Raises ConfigError."""
        self.done.add(name)
        return self.read(name, self.values[name]) if name in self.values else None

    def default(self, name: str) -> Any:
        """What kohya takes where nothing is said; None where the file need not say all."""
        return BY_NAME[name].default if self.whole else None

    def read(self, name: str, value: Any) -> Any:
        """``value`` as the option's kind. Raises ConfigError where it is of none."""
        try:
            return _READ[BY_NAME[name].kind](value)
        except (ValueError, TypeError, OverflowError) as error:
            kind = {"whole": "whole number", "flag": "true or false"}.get(BY_NAME[name].kind, BY_NAME[name].kind)
            raise ConfigError(f"{name} is {shown(value)} in {self.near}, which is no {kind}; mend it") from error


def _whole(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError(f"{number} is not whole")
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(f"{value!r} is no number")
    number = float(value)
    if not isfinite(number):
        raise ValueError("not finite")
    return number


def _flag(value: Any) -> bool:
    words = {"true": True, "false": False, "1": True, "0": False}
    return words[str(value).strip().lower()] if str(value).strip().lower() in words else _number(value) != 0


def _text(value: Any) -> str:
    if isinstance(value, str | int | float | bool):
        return value if isinstance(value, str) else str(value)
    return shown(value)


_READ: Final[Mapping[Kind, Callable[[Any], Any]]] = {"whole": _whole, "number": _number, "flag": _flag, "text": _text}
