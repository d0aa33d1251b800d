"""vez: from thirty pictures to a LoRA, and the proof that it learned.

The public names, loaded on first touch: `import vez` costs milliseconds and imports neither torch nor pydantic. A stage is a module of its own
(`vez.study.run`, `vez.train.train`), because a function of the same name here would be shadowed by its module as soon as that is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vez.config import Config, load
    from vez.errors import VezError

__all__ = [
    "Config",
    "VezError",
    "__version__",
    "base",
    "dataset",
    "interop",
    "load",
    "lora",
    "metrics",
    "report",
    "sample",
    "store",
    "study",
    "train",
]

__version__ = "0.1.0"

_NAMES = {"Config": "vez.config", "load": "vez.config", "VezError": "vez.errors"}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(_NAMES[name]), name)
    if name in __all__:
        return import_module(f"vez.{name}")
    raise AttributeError(f"module 'vez' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
