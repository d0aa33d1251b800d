"""One small study on disk for all tests of the report; a test that changes it copies it first."""

from pathlib import Path

import pytest
from study_on_disk import build


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("project"), size=48, pictures=9, steps=40)
