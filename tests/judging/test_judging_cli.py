"""`vez judge` as a person runs it: a page in a process of its own, stopped and killed, and what the votes say."""

import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from judged_study import build, judge, prefers
from typer.testing import CliRunner

from vez.cli import MISTAKE, app
from vez.judging.votes import FOLDER, read

TOML = """
[project]
base = "tiny"
trigger = "nosnjaoutfit"
noun = "folk costume"
describes = "traditional Serbian folk costume"

[dataset.v1]
images = "images"

[study.thesis]
steps = 1
variant = { v1 = { dataset = "v1" } }
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    build(tmp_path, size=16)
    (tmp_path / "vez.toml").write_text(TOML)
    return tmp_path / "vez.toml"


def run(project: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["judge", "-c", str(project), *options])


@contextmanager
def sitting(project: Path, *options: str) -> Iterator[tuple[Any, str]]:
    """The command in a process of its own, and its page's address."""
    command = [sys.executable, "-m", "vez", "judge", "-c", str(project), "--no-browser", "--votes", "20", *options]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            said = ""
            assert process.stdout is not None
            for line in process.stdout:
                said += line
                if found := re.search(r"http://127\.0\.0\.1:\d+/\S+/", line):
                    yield process, found[0]
                    break
            else:
                raise AssertionError(said)
        finally:
            process.kill()


def vote(page: str, count: int) -> int:
    """Vote so often as the page does; returns how many votes the page counts in the end."""
    with urllib.request.urlopen(page + "state", timeout=30) as answer:
        state = json.load(answer)
    for _ in range(count):
        body = json.dumps({"handle": state["handle"], "answer": "left", "seconds": 2.5}).encode()
        headers = {"Content-Type": "application/json", "Origin": page.rpartition("/")[0].rpartition("/")[0]}
        request = urllib.request.Request(page + "vote", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            state = json.load(answer)
    return int(state["answered"])


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_votes_outlive_a_kill_and_the_same_command_goes_on(project: Path) -> None:
    votes = project.parent / "studies" / "thesis" / FOLDER
    with sitting(project) as (process, page):
        assert vote(page, 5) == 5
        refused = run(project, "--no-browser")
        assert refused.exit_code == MISTAKE and "another window" in refused.output
        process.send_signal(signal.SIGKILL)
        process.wait()
    with open(votes / "me.jsonl", "ab") as file:
        file.write(b'{"pair": "torn by the ki')
    assert len(read(votes)) == 5
    with sitting(project) as (process, page):
        assert vote(page, 2) == 7
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
        assert process.wait() == 0
    assert "concept: 7 of 20 pairs judged" in said and "text: 0 of 20" in said and "--results" in said
    assert len(read(votes)) == 7 and b"torn" not in (votes / "me.jsonl").read_bytes()


def test_results_in_words_and_as_data(project: Path) -> None:
    study = project.parent / "studies" / "thesis"
    before = run(project, "--results")
    assert before.exit_code == MISTAKE and "nobody has judged thesis yet" in before.output
    judge(study, "ana", prefers(("v2", "v4", "v1", "base")))
    told = run(project, "thesis", "--results")
    assert told.exit_code == 0, told.output
    assert "48 comparisons by 1 judge" in told.output and "Judge ana: 60 votes" in told.output
    assert json.loads((study / FOLDER / "results.json").read_text())["questions"][0]["comparisons"] == 48


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--arm", "v9"), "no arm 'v9' to judge; there are: v1, v2, v4, base"),
        (("--judge", "../ana"), "cannot be a file's name"),
        (("nothing",), "nothing"),
    ],
)
def test_mistakes_are_one_line(project: Path, options: tuple[str, ...], said: str) -> None:
    result = run(project, "--no-browser", *options)
    assert result.exit_code == MISTAKE and said in result.output and "Traceback" not in result.output


@pytest.mark.enable_socket
@pytest.mark.allow_hosts(["127.0.0.1"])
def test_options_change_what_is_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(server: socketserver.BaseServer, poll_interval: float) -> None:
        raise KeyboardInterrupt

    opened: list[str] = []
    monkeypatch.setattr(socketserver.BaseServer, "serve_forever", stopped)
    monkeypatch.setattr("webbrowser.open", opened.append)
    said = run(project).output
    assert "concept: 0 of 60 pairs" in said and opened[0] in said and opened[0].startswith("http://127.0.0.1:")
    assert "concept: 0 of 12 pairs" in run(project, "--minutes", "2", "--no-browser").output
    with socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as free:
        port = free.server_address[1]
    said = run(project, "--votes", "7", "--no-browser", "--port", str(port)).output
    assert "concept: 0 of 7 pairs" in said and f"http://127.0.0.1:{port}/" in said
    assert len(opened) == 1
    fewer = run(project, "--no-browser", "--arm", "v2", "--arm", "v4", "--judge", "ana").output
    assert "3 arms make 3 pairings" in fewer and (project.parent / "studies/thesis/judging/ana.jsonl").exists()
