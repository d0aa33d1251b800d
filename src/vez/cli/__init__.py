"""The command line: one command per stage. It parses, calls, prints.

Whatever it does can be done from Python by the same functions. Nothing heavy is imported at the top, so that
`vez --help` answers at once: each command imports the stage it runs.
"""

from vez.cli import bench, files, judging, pictures, studies
from vez.cli.app import MISTAKE, STOPPED, app

__all__ = ["MISTAKE", "STOPPED", "app", "bench", "files", "judging", "pictures", "studies"]
