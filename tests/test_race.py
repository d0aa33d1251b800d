"""vez beside a good loop of diffusers and peft, at the size of SD 1.5: it is not slower and takes less memory."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[1]
NEEDED = 12e9  # bytes, of all arms together


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_step_is_no_slower_than_the_reference_and_its_peak_is_lower() -> None:
    """bench/compare.py refuses arms whose losses or gradients part: equal work comes first."""
    if psutil.virtual_memory().available < NEEDED:
        pytest.skip(f"needs {NEEDED / 1e9:.0f} GB of free memory")
    row = {"base": "sd1", "size": 256, "batch": 1, "rank": 32, "dtype": "bf16", "pairs": 3, "warm": 2}
    how = [word for key, value in row.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, str(ROOT / "bench" / "compare.py"), *how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal work" in done.stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:2] == "| "]
    arms = {name: (float(re.match(r"[\d.]+", ratio)[0]), float(peak)) for name, *_, ratio, _, _, peak in rows[1:]}  # type: ignore[index]
    assert arms.pop("vez") == (1.0, 1.0) and len(arms) >= 2
    assert all(ratio >= 1 for ratio, _ in arms.values()), done.stdout
    assert all(peak <= 0.85 for _, peak in arms.values()), done.stdout
