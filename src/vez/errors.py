"""Every error that vez raises on purpose. A message names the mistake, the value, and the way out.

VezError
├── ConfigError      vez.toml says something that cannot be meant
├── DataError        a picture, a caption or a dataset cannot be used
├── BaseModelError   the base (or a captioner, or an encoder) cannot be loaded or is of an unknown family
├── LoraFileError    a LoRA file is damaged, or made for something else
├── StoreError       an artifact on disk is missing, damaged, or being made by another process
├── TrainError       a run cannot go on
│   └── RunStopped   some runs of a pass came to numbers that are not finite; the others are finished
└── MissingExtra     the feature needs a package that is not installed
"""

import errno


class VezError(Exception):
    """The root: catch this to catch whatever vez raises on purpose. Its text is one readable sentence."""


class ConfigError(VezError):
    """vez.toml (or a table of it) is not valid."""


class DataError(VezError):
    """A picture, a caption or a dataset cannot be used."""


class BaseModelError(VezError):
    """A model's weights cannot be loaded, or are of a family vez does not know."""


class LoraFileError(VezError):
    """A LoRA file cannot be read, or does not fit the base."""


class StoreError(VezError):
    """An artifact or an event file on disk is missing, damaged, or in use."""


class TrainError(VezError):
    """A run cannot go on."""


class RunStopped(TrainError):
    """Runs whose loss, gradient or weights were no longer finite; raised after the others of the pass are finished."""


class MissingExtra(VezError):
    """A feature needs a package that is not installed; the message names the extra to install."""


def no_room(error: OSError) -> str:
    """Why a file could not be written; of a full disk also what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space and run again: what is finished stays, what was cut goes on"
    return str(error.strerror)
