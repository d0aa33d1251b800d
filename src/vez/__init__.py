"""vez: teach Stable Diffusion one new concept from about thirty pictures, and prove that it learned it.

The public names below load on first touch, so that `import vez` is cheap and brings no torch. Where a stage has the
name of its module (`vez.train`, `vez.sample`, `vez.report`), `vez.<name>` is always the stage; what else its module
holds comes by `from vez.train import …`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# public name -> (module, name in it; None = the module itself)
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "Config": ("vez.config", "Config"),
    "VezError": ("vez.errors", "VezError"),
    "load_config": ("vez.config", "load"),
    "collect": ("vez.collect", "collect"),
    "curate": ("vez.curate", None),
    "build": ("vez.dataset", "build"),
    "load_dataset": ("vez.dataset", "load"),
    "train": ("vez.train", "train"),
    "sample": ("vez.sample", "sample"),
    "score": ("vez.metrics.scores", "score"),
    "report": ("vez.report.build", "report"),
    "study": ("vez.study", None),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vez' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = import_module(module_name)
    value: Any = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])


class _Package(ModuleType):
    """Keeps `vez.train` the stage: importing the submodule of that name would otherwise bind the module over it."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _PUBLIC.get(name, ("", None))[1] is not None:
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
