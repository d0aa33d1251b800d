"""A disk that is really full: a small file system of its own, on which a run stops, keeps all, and goes on.

Needs Linux and the right to make a mount namespace (`unshare`); skipped elsewhere.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vez.base import Base
from vez.dataset import Dataset

MOUNT = ["unshare", "--user", "--map-root-user", "--mount"]


def may_mount() -> bool:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    command = [*MOUNT, "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not may_mount(), reason="no file system can be mounted here")

# In a mount namespace of its own: the disk is filled up but for some KiB, a run is tried, more is freed, and so on.
SCRIPT = """
import errno, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from vez import base as bases, dataset as datasets
from vez.config import Sampling, Variant
from vez.errors import StoreError
from vez.preview import Preview
from vez.store import open_artifact, verify
from vez.train import train

base, dataset = bases.load(sys.argv[1]), datasets.load(Path(sys.argv[2]))
disk, plain = Path(sys.argv[3]), Path(sys.argv[4])
variants = {"v1": Variant(dataset="tiny", rank=16, lr_unet=1e-3, ema=0.5)}

def run(into):
    preview = Preview(2, ("zolka",), Sampling(steps=1, size=64))
    rest = dict(steps=6, save_every=2, validate_every=3, preview=preview, checkpoint_seconds=0.0)
    return list(train(base, dataset, variants, seed=0, into={"v1": into / "v1"}, cache=into / "latents", **rest))

run(plain)
filler = disk / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError as error:
        assert error.errno == errno.ENOSPC
stops, kept, size = [], set(), filler.stat().st_size
while True:
    try:
        run(disk / "runs")
        break
    except StoreError as error:
        stops.append(str(error))
        there = {file.name for file in (disk / "runs" / ".v1.partial").glob("lora*.safetensors")}
        assert kept <= there, "what was finished stays"
        kept = there
        assert not list((disk / "runs").rglob(".*.tmp")), "half a file was left"
    size -= int(sys.argv[5]) * 1024
    assert size > 0, "it never ended"
    with filler.open("rb+") as file:
        file.truncate(size)
made, whole = open_artifact(disk / "runs" / "v1"), open_artifact(plain / "v1")
verify(made)
assert made.id == whole.id
different = {n for n in whole.files if n != "events.jsonl" and whole.files[n] != made.files.get(n)}
assert not different and made.files.keys() == whole.files.keys(), different
print(len(stops))
for stop in stops:
    print(stop)
"""


@pytest.mark.parametrize("step", [37])
def test_a_full_disk_stops_with_a_sentence_and_the_run_goes_on(
    step: int, random_base: Base, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Wherever it is full, down to the first folder, and as often as it is: it ends in the same bytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = f'mount -t tmpfs -o size=4m none "{disk}" && exec "$@"'
    arguments = [str(path) for path in (random_base.path, tiny_dataset.path, disk, tmp_path / "plain")]
    command = [*MOUNT, "sh", "-c", mounted, "sh", sys.executable, "-c", SCRIPT, *arguments, str(step)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-3000:]
    count, *stops = ended.stdout.splitlines()
    assert int(count) == len(stops) >= 5, "each is one sentence"
    assert all("the disk is full; free some space and run again" in stop for stop in stops), stops
