"""A local server for each test that asks for one."""

from collections.abc import Iterator

import pytest
from local_server import Local, serving


@pytest.fixture
def local() -> Iterator[Local]:
    with serving() as server:
        yield server
