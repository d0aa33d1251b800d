"""Captioners: what says in words what pictures show. All stand behind one protocol.

The model libraries are loaded by `load` only: a dataset's id needs to know which captioner it is, not what it says.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from PIL import Image

from vez.errors import BaseModelError
from vez.store import canonical_json, file_sha256

# Ids on the hub; after the "@" the commit. BLIP's is the conversion to safetensors, which its main branch lacks;
# Florence-2's is the repository in transformers' own layout that transformers' documentation names.
_PUBLISHED: Final = {
    "blip": "Salesforce/blip-image-captioning-base@9cfcdbcaccbcadb2b53b36d4b50042c4eeaa0c25",
    "florence-2": "florence-community/Florence-2-base",
    "florence-2-detailed": "florence-community/Florence-2-base",
    "wd14": "SmilingWolf/wd-swinv2-tagger-v3@805ca9892b4fdfbe3f06f9de3f0a07b3da8637ed",
}
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")
_SUPPORTED: Final = "BLIP, Florence-2 in transformers' own layout, and WD taggers (model.onnx and selected_tags.csv)"
_FILES: Final = {
    "blip": ("*.json", "*.txt", "model*.safetensors"),
    "florence2": ("*.json", "*.txt", "model*.safetensors"),
    "tags": ("config.json", "model.onnx", "selected_tags.csv"),
}
_HASHED: Final = (".safetensors", ".json", ".txt", ".onnx", ".csv")
_VERSION: Final = "2"  # raised when the same weights would say something else


class Captioner(Protocol):
    """Whatever says in words what pictures show."""

    identity: str
    """A text that changes whenever another caption could come out."""

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """One caption per RGB picture, in order. Must not depend on what else is in ``images``."""
        ...


def source_of(captioner: str, *, base: str, root: Path) -> str:
    """The folder, or hub id with "@commit" where one is pinned, behind a dataset's ``captioner``.

    "blip" is the base's own (for the base "tiny", the one in the package); a folder is below ``root``.
    """
    if captioner == "blip" and base == "tiny":
        return str(Path(__file__).parents[2] / "demo" / "blip")
    if captioner in _PUBLISHED:
        return _PUBLISHED[captioner]
    return str(root / captioner) if (root / captioner).is_dir() else captioner


def identity_of(captioner: str, *, base: str, root: Path) -> dict[str, str]:
    """What decides a captioner's words: the hash of each file of a folder, or the hub id; and the way it is asked.

    A hub id without a commit is taken at its word. No path of this machine is in it. Loads no model library.
    Raises BaseModelError for a folder that cannot be read.
    """
    source = source_of(captioner, base=base, root=root)
    said = {"version": _VERSION, "task": "detailed" if captioner == "florence-2-detailed" else "caption"}
    if not Path(source).is_dir():
        return said | {"source": source}
    try:
        files = sorted(path for path in Path(source).iterdir() if path.suffix in _HASHED and path.is_file())
        return said | {path.name: file_sha256(path) for path in files}
    except OSError as error:
        raise BaseModelError(f"the captioner {source!r} cannot be read: {error.strerror}") from error


def digest(identity: Mapping[str, str]) -> str:
    """SHA-256 (hex) of an identity: what a `Captioner` calls itself."""
    return hashlib.sha256(canonical_json(identity).encode()).hexdigest()


def load(captioner: str, *, base: str, root: Path, device: str = "cpu", batch: int = 8) -> Captioner:
    """The captioner that a dataset names; what it is, its config.json says. A hub id is fetched first.

    Raises BaseModelError where it cannot be had or is of a kind that vez does not know, and MissingExtra for a tagger
    without its extra. Code that comes with a model is never run.
    """
    folder, kind = _fetch(source_of(captioner, base=base, root=root))
    identity = digest(identity_of(captioner, base=base, root=root))
    if kind == "tags":
        from vez.images.captioners.tags import Tagger

        return Tagger(folder, identity=identity)
    if kind == "florence2":
        from vez.images.captioners.florence import Florence

        detailed = captioner == "florence-2-detailed"
        return Florence(folder, detailed=detailed, identity=identity, device=device, batch=batch)
    from vez.images.captioners.blip import Blip

    return Blip(folder, identity=identity, device=device, batch=batch)


def _fetch(source: str) -> tuple[Path, str]:
    """The captioner's folder on this machine, and its kind: a key of _FILES."""
    if Path(source).is_dir():
        return Path(source), _kind(Path(source) / "config.json", source)
    if not _HUB_ID.fullmatch(source):
        raise BaseModelError(
            f"there is no folder {source!r}; a captioner is one of {', '.join(_PUBLISHED)}, a folder below vez.toml, "
            "or a hub id (owner/name, or owner/name@commit)"
        )
    from huggingface_hub import hf_hub_download, snapshot_download

    name, _, revision = source.partition("@")
    try:
        kind = _kind(Path(hf_hub_download(name, "config.json", revision=revision or None)), source)
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES[kind]))), kind
    except (OSError, ValueError) as error:  # the hub's errors are OSErrors, a malformed id is a ValueError
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseModelError(
            f"the captioner {source!r} is neither a folder here nor to be had from the hub ({first}); check the name "
            "and the network, give a folder, or write the captions by hand"
        ) from error


def _kind(config: Path, source: str) -> str:
    """Which kind of captioner a config.json describes: a key of _FILES; a tagger's has no model_type, or is absent."""
    row: Any = {}
    try:
        row = json.loads(config.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise BaseModelError(f"config.json of the captioner {source!r} cannot be read; copy it again") from error
    if not isinstance(row, dict):
        raise BaseModelError(f"config.json of the captioner {source!r} is not an object; copy it again")
    if "auto_map" in row:
        raise BaseModelError(
            f"the captioner {source!r} brings code of its own, which vez does not run; vez knows {_SUPPORTED}"
        )
    kind = str(row.get("model_type", "tags"))
    if kind == "tags" and Path(source).is_dir() and not (Path(source) / "model.onnx").is_file():
        raise BaseModelError(f"the folder {source!r} holds no captioner; vez knows {_SUPPORTED}")
    if kind not in _FILES:
        raise BaseModelError(f"the captioner {source!r} is of the kind {kind!r}; vez knows {_SUPPORTED}")
    return kind
