"""A network's configuration, as it came with a file: checked field by field before anything is built from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from vez.errors import BaseModelError

WIDEST = 16_384
"""Channels, tokens' widths and the like; SDXL's widest is 10,240."""
MOST = 512
"""Layers and blocks of one kind."""


class Fields:
    """Reads a configuration's fields; what is absent has its default, what is odd is refused by name and value."""

    def __init__(self, config: Mapping[str, Any], *, what: str) -> None:
        self.config, self.what = config, what

    def refused(self, key: str, known: str) -> BaseModelError:
        """The error for a field; ``known`` says what vez builds."""
        value = repr(self.config.get(key))
        said = value if len(value) <= 80 else f"{value[:77]}…"
        return BaseModelError(f"{self.what} asks for {key} = {said}, but vez builds {known}; take another base")

    def number(self, key: str, default: int, *, most: int = WIDEST) -> int:
        """A whole number from 1 to ``most``."""
        return self._whole(key, self.config.get(key, default), most)

    def _whole(self, key: str, value: Any, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self.refused(key, f"whole numbers from 1 to {most} there")
        return value

    def maybe(self, key: str, *, most: int = WIDEST) -> int | None:
        """A whole number, or None where there is none."""
        return None if self.config.get(key) is None else self.number(key, 0, most=most)

    def fraction(self, key: str, default: float) -> float:
        """A small positive number, such as a norm's epsilon or the scale of latents."""
        value = self.config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e4:
            raise self.refused(key, "positive numbers there")
        return float(value)

    def numbers(self, key: str, default: Sequence[int], *, most: int = WIDEST, longest: int = 8) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self.config.get(key, default)
        if not isinstance(value, list | tuple) or not 1 <= len(value) <= longest:
            raise self.refused(key, f"lists of 1 to {longest} numbers there")
        return tuple(self._whole(key, one, most) for one in value)

    def each(self, key: str, default: int, *, levels: int, most: int = WIDEST) -> tuple[int, ...]:
        """A number for every level: one for all, or a list of one each."""
        value = self.config.get(key, default)
        if not isinstance(value, list | tuple):
            return (self.number(key, default, most=most),) * levels
        if len(value) != levels:
            raise self.refused(key, f"one number, or one for each of its {levels} levels,")
        return self.numbers(key, (), most=most)

    def words(self, key: str, default: Sequence[str], known: Sequence[str], *, levels: int) -> tuple[str, ...]:
        """A list of names, one for each level, of those that are known."""
        value = self.config.get(key, default)
        if not isinstance(value, list | tuple) or len(value) != levels or not all(one in known for one in value):
            raise self.refused(key, f"{levels} of {', '.join(known)} there")
        return tuple(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            raise self.refused(key, "true or false there")
        return value

    def only(self, **known: tuple[Any, ...]) -> None:
        """Fields that vez builds in one way: the values that mean it, the first being what an absent field means."""
        for key, values in known.items():
            value = self.config.get(key, values[0])
            if not any(value is one or (type(value) in (int, float, str) and value == one) for one in values):
                raise self.refused(key, " or ".join(repr(one) for one in values))
