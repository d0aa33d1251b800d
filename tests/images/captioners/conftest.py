from pathlib import Path

import pytest
from thin_captioners import write_blip, write_florence, write_model, write_tags


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip")
    write_blip(folder)
    return folder


@pytest.fixture(scope="session")
def florence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("florence")
    write_florence(folder)
    return folder


@pytest.fixture
def tagger_folder(tmp_path: Path) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "tagger"
    folder.mkdir()
    write_tags(folder)
    write_model(folder)
    return folder
