"""Ten thousand pictures: the memory of a build does not grow with them beyond what each leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "build.py"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_pictures_in_bounded_memory() -> None:
    command = [sys.executable, str(BENCH), "--pictures", "10000", "--width", "320", "--resolution", "64"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    whole = [json.loads(line) for line in out.splitlines()][-1]
    assert whole["pictures"] == 10_000 and whole["peak_mib"] <= 1536
