"""A sitting over a small study, served on 127.0.0.1 in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from judged_study import PROJECT

from vez.judging import material, session
from vez.judging.server import Server
from vez.judging.votes import FOLDER, Ballots


@contextmanager
def served(study: Path, *, judge: str = "me", votes: int = 20, real: tuple[Path, ...] = ()) -> Iterator[Server]:
    """The server of one judge; ``troubles`` on it holds what the terminal would say."""
    judged = material.read(study, PROJECT)
    with Ballots(study / FOLDER, judge) as ballots:
        sitting = session.begin(judged, ballots, project=PROJECT, votes=votes, references=real)
        troubles: list[str] = []
        with Server(sitting, tell=troubles.append) as server:
            server.troubles = troubles  # type: ignore[attr-defined]
            thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()
