import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from PIL import Image

import vez.demo
from vez.errors import BaseModelError
from vez.images.captioners import digest, identity_of, load, source_of

SHIPPED = Path(vez.demo.__file__).parent / "blip"


def copy(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_where_the_captioner_lies(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert source_of("blip", base="tiny", root=tmp_path) == str(SHIPPED)
    assert source_of("blip", base="a/base", root=tmp_path).startswith("Salesforce/blip-image-captioning-base@")
    assert source_of("florence-2", base="tiny", root=tmp_path) == "florence-community/Florence-2-base"
    assert source_of("wd14", base="tiny", root=tmp_path).startswith("SmilingWolf/wd-swinv2-tagger-v3@")
    assert source_of("mine", base="tiny", root=tmp_path) == str(tmp_path / "mine")
    assert source_of("who/what", base="tiny", root=tmp_path) == "who/what"


def test_an_identity_changes_with_every_file_and_not_with_the_place(tmp_path: Path) -> None:
    def identity(name: str) -> dict[str, str]:
        return identity_of(name, base="tiny", root=tmp_path)

    one, two = copy(SHIPPED, tmp_path / "one"), copy(SHIPPED, tmp_path / "two")
    (one / "README.md").write_text("not asked")
    assert identity("one") == identity("two") == identity("blip")
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        before = digest(identity("two"))
        (two / file).write_bytes((two / file).read_bytes() + b" ")
        assert digest(identity("two")) != before
    others = [digest(identity(name)) for name in ("blip", "florence-2", "florence-2-detailed", "wd14", "who/what")]
    assert len(set(others)) == len(others)
    assert str(tmp_path) not in json.dumps(identity("one"))


def test_an_identity_costs_no_model_library(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from vez.images.captioners import identity_of\n"
        "identity_of('blip', base='tiny', root=pathlib.Path('.'))\n"
        "assert not {'torch', 'transformers', 'onnxruntime', 'huggingface_hub'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_folder_is_loaded_as_what_its_config_says(tmp_path: Path) -> None:
    copy(SHIPPED, tmp_path / "mine")
    captioner = load("mine", base="a/base", root=tmp_path, batch=2)
    assert type(captioner).__name__ == "Blip"
    assert captioner.identity == digest(identity_of("mine", base="a/base", root=tmp_path))
    images = [Image.new("RGB", (9, 9), colour) for colour in ("red", "white", "green")]
    assert captioner.caption(images) == load("blip", base="tiny", root=tmp_path).caption(images)


def test_every_kind_is_known_by_its_folder(
    blip_folder: Path, florence_folder: Path, tagger_folder: Path, tmp_path: Path
) -> None:
    kinds = {"Blip": blip_folder, "Florence": florence_folder, "Tagger": tagger_folder}
    for kind, folder in kinds.items():
        captioner = load(str(folder), base="tiny", root=tmp_path)
        assert type(captioner).__name__ == kind
        assert captioner.identity == digest(identity_of(str(folder), base="tiny", root=tmp_path))
        assert len(captioner.caption([Image.new("RGB", (9, 9), "red")])) == 1


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ('{"model_type": "llava"}', "of the kind 'llava'; vez knows BLIP, Florence-2"),
        ('{"model_type": ["blip"]}', "of the kind"),
        ('{"model_type": "florence2", "auto_map": {"AutoModel": "modeling.X"}}', "code of its own"),
        ('{"architecture": "vit"}', "holds no captioner"),
        ("[]", "not an object"),
        ("{", "cannot be read"),
        (None, "holds no captioner"),
    ],
)
def test_what_is_no_known_captioner_is_refused(tmp_path: Path, config: str | None, problem: str) -> None:
    (tmp_path / "mine").mkdir()
    if config is not None:
        (tmp_path / "mine" / "config.json").write_text(config)
    with pytest.raises(BaseModelError, match=problem):
        load("mine", base="tiny", root=tmp_path)


@pytest.mark.parametrize("name", ["blib", "../x", "a/b/c", "a/b@", "http://a/b", "a/b@c d", "/no/where"])
def test_what_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BaseModelError, match="florence-2, florence-2-detailed, wd14"):
        load(name, base="tiny", root=tmp_path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], None]:
    """What the hub's own cache looks like after a download; the hub itself is out of reach."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name: str, source: Path) -> None:
        id, _, commit = name.partition("@")
        folder = tmp_path / "hub" / f"models--{id.replace('/', '--')}"
        copy(source, folder / "snapshots" / (commit or "a" * 40))
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("a" * 40)

    return put


@pytest.mark.parametrize("name", ["who/what", f"who/what@{'b' * 40}"])
def test_a_hub_id_is_loaded_from_its_download(hub: Callable[[str, Path], None], tmp_path: Path, name: str) -> None:
    hub(name, SHIPPED)
    images = [Image.new("RGB", (9, 9), "red")]
    captioner = load(name, base="tiny", root=tmp_path)
    assert captioner.caption(images) == load("blip", base="tiny", root=tmp_path).caption(images)
    assert captioner.identity == digest(identity_of(name, base="tiny", root=tmp_path))


def test_names_stand_for_downloads(
    hub: Callable[[str, Path], None], blip_folder: Path, florence_folder: Path, tagger_folder: Path, tmp_path: Path
) -> None:
    (tagger_folder / "config.json").write_text('{"architecture": "swinv2_base_window8_256"}')
    kinds = {"blip": blip_folder, "florence-2": florence_folder, "wd14": tagger_folder}
    for name, folder in kinds.items():
        hub(source_of(name, base="a/base", root=tmp_path), folder)
    loaded = {name: load(name, base="a/base", root=tmp_path) for name in [*kinds, "florence-2-detailed"]}
    assert [type(one).__name__ for one in loaded.values()] == ["Blip", "Florence", "Tagger", "Florence"]
    assert len({one.identity for one in loaded.values()}) == 4
    brief, detailed = (loaded[name].ask([Image.new("RGB", (9, 9))]) for name in ("florence-2", "florence-2-detailed"))
    assert brief["input_ids"].shape != detailed["input_ids"].shape


@pytest.mark.parametrize("name", ["blip", "florence-2", "wd14", "who/what"])
def test_a_hub_out_of_reach_is_one_clear_error(hub: Callable[[str, Path], None], tmp_path: Path, name: str) -> None:
    with pytest.raises(BaseModelError, match="check the name and the network"):
        load(name, base="a/base", root=tmp_path)
