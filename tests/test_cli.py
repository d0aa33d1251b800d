"""The command line as a person meets it: what it prints, where, and with which exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vez
from vez.cli import MISTAKE, STOPPED, app

RUN = CliRunner()
INIT = ["--trigger", "nosnjaoutfit", "--noun", "folk costume", "--base", "tiny", "--resolution", "64"]


def test_help_lists_every_stage() -> None:
    result = RUN.invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in ("demo", "init", "build", "train", "sample", "score", "study", "report", "doctor"):
        assert command in result.output
    assert RUN.invoke(app, ["--version"]).output == f"vez {vez.__version__}\n"


def test_init_then_build_without_pictures(tmp_path: Path) -> None:
    made = RUN.invoke(app, ["init", str(tmp_path / "p"), *INIT])
    assert made.exit_code == 0
    assert str(tmp_path / "p" / "vez.toml") in made.output
    built = RUN.invoke(app, ["build", "-c", str(tmp_path / "p" / "vez.toml")])
    assert built.exit_code == MISTAKE
    assert built.stderr.startswith("vez: ")
    assert len(built.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["study", "-c", "nowhere/vez.toml"], "make one with `vez init`"),
        (["build", "v9"], "v9"),
        (["study", "nothing", "--plan"], "there is no [study.nothing]"),
        (["report"], "run `vez study` first"),
        (["study", "--plan", "--device", "toaster"], "toaster"),
    ],
)
def test_a_mistake_is_one_line_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    RUN.invoke(app, ["init", str(tmp_path), *INIT])
    for i in range(6):
        (tmp_path / "images" / f"{i}.png").write_bytes(b"not a picture")
    monkeypatch.chdir(tmp_path)
    result = RUN.invoke(app, arguments)
    assert result.exit_code == MISTAKE
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output


def test_the_plan_is_printed_and_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RUN.invoke(app, ["init", str(tmp_path), *[a if a != "tiny" else "someone/some-model" for a in INIT]])
    for i in range(6):
        (tmp_path / "images" / f"{i}.png").write_bytes(b"not a picture")
    monkeypatch.chdir(tmp_path)
    result = RUN.invoke(app, ["study", "--plan", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "Study first: 2 variants × 1 seed, 2000 pictures seen each" in result.output
    assert "2 variants in one pass" in result.output
    assert "9.00 MiB" in result.output and "36.00 MiB" in result.output
    assert "as for an SD 1.x base" in result.output
    assert not (tmp_path / "studies").exists() and not (tmp_path / ".vez").exists()


def test_the_libraries_bars_stay_out_of_a_log_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.chdir(tmp_path)
    RUN.invoke(app, ["build"])
    assert os.environ.pop("HF_HUB_DISABLE_PROGRESS_BARS") == "1"


def test_doctor_prints_a_line_per_fact() -> None:
    result = RUN.invoke(app, ["doctor"])
    assert result.exit_code in (0, 1)  # 1: this machine lacks something, and the output says what
    assert "torchvision" in result.output and "device" in result.output


STOP = """
import sys, time
from vez import cli, study
def run(config, name, *, device):
    from vez.events import Note
    yield Note("working")
    sys.stdout.flush()
    time.sleep(60)
study.run = run
sys.argv = ["vez", "study", "first", "-c", sys.argv[1]]
cli.app()
"""


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    RUN.invoke(app, ["init", str(tmp_path), *[a if a != "tiny" else "someone/some-model" for a in INIT]])
    for i in range(6):
        (tmp_path / "images" / f"{i}.png").write_bytes(b"not a picture")
    toml = str(tmp_path / "vez.toml")
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", STOP, toml], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "working" in line:
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == STOPPED
    assert stderr.strip() == f"Stopped. What was made is kept; go on with: vez study first -c {toml}"
