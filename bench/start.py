"""Seconds until something happens: `vez --help`, and the first training step of `vez study` on the embedded base."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep

from vez.demo import copy_project

COMMAND = [sys.executable, "-m", "vez"]
_LOOK = 0.02  # seconds between two looks for the first step
_LIMIT = 300.0


def helps(times: int) -> list[float]:
    """Seconds of `vez --help`."""
    found = []
    for _ in range(times):
        began = perf_counter()
        subprocess.run([*COMMAND, "--help"], check=True, capture_output=True)
        found.append(perf_counter() - began)
    return found


def first_steps(times: int) -> tuple[list[float], list[float]]:
    """Seconds of `vez study` on the demo from the command to its first step: from nothing, and with datasets built."""
    fresh, again = [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            project = Path(folder) / "demo"
            copy_project(project)
            fresh.append(_first_step(project))
            shutil.rmtree(project / "studies")
            again.append(_first_step(project))
    return fresh, again


def _first_step(project: Path) -> float:
    began = perf_counter()
    with _running([*COMMAND, "study", "nosnja", "--config", str(project / "vez.toml")]) as process:
        while not _stepped(project):
            if process.poll() is not None or perf_counter() - began > _LIMIT:
                raise SystemExit("vez study ended, or took five minutes, before its first step")
            sleep(_LOOK)
        return perf_counter() - began


def _stepped(project: Path) -> bool:
    logs = project.glob("studies/*/runs/.*/events.jsonl")
    return any('"event": "step"' in log.read_text(encoding="utf-8") for log in logs)


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
