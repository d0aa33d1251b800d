"""Where a base, a VAE or a tokenizer lies on this machine; what is on the hub is fetched first."""

from collections.abc import Sequence
from pathlib import Path

import vez
from vez.errors import BaseModelError

SINGLE = (".safetensors", ".ckpt")
_PICKLES = (".pt", ".pth", ".bin", ".pkl")


def tiny_path() -> Path:
    """Folder of the base in the package."""
    return Path(vez.__file__).parent / "demo" / "base"


def locate(name: str, *, what: str, patterns: Sequence[str]) -> Path:
    """The folder or file called ``name``; a hub id's files of these ``patterns`` are fetched. Raises BaseModelError.

    ``what`` is what the name stands for in the sentence of an error ("base", "VAE").
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        if path.suffix.lower() in SINGLE:
            return path
        kind = "a pickle, which can run code when read" if path.suffix.lower() in _PICKLES else "no kind of file it can"
        raise BaseModelError(f"the {what} {name} is {kind}; vez reads .safetensors, and .ckpt that hold weights only")
    if name.count("/") != 1 or path.is_absolute() or name.startswith(".") or path.suffix.lower() in SINGLE:
        tiny = '"tiny", ' if what == "base" else ""
        raise BaseModelError(
            f"there is no folder or file {name!r}; a {what} is {tiny}a diffusers folder, a .safetensors file, or a hub "
            "id (owner/name)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except (HFValidationError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BaseModelError(
            f"the {what} {name!r} is neither a folder here nor to be had from the hub ({first}); "
            "check the name and the network, or give a folder"
        ) from error
