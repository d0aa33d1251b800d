"""The command line stays small: the exact list of what each command can be given is held here."""

from vez.reference import commands, options

# An entry is added on purpose, with its docs and a test that it changes something; most settings belong into vez.toml.
OPTIONS = {
    "bench": [
        *(
            "--base",
            "--size",
            "--batch",
            "--rank",
            "--variants",
            "--dtype",
            "--checkpointing",
            "--device",
            "--steps",
            "--config",
            "--json",
        ),
    ],
    "build": ["[DATASET]...", "--config"],
    "caption": ["DATASET", "--diff", "--config"],
    "check": ["[DATASET]...", "--json", "--config"],
    "collect": ["SOURCE", "INTO", "--limit", "--side", "--licence", "--config"],
    "controls": ["STUDY", "--config", "--device"],
    "convert": [
        *("FILE...", "OUT", "--to", "--dtype", "--rank", "--energy", "--sv-ratio"),
        *("--weight", "--into", "--minus", "--strip", "--force"),
    ],
    "crop": ["DATASET", "SHEET", "--config"],
    "demo": ["FOLDER", "--device"],
    "diff": ["OLD", "NEW", "--html", "--json", "--config"],
    "doctor": [],
    "exclude": ["DATASET", "FILE", "--because", "--config"],
    "export": ["DATASET", "FOLDER", "--layout", "--repeats", "--words", "--config"],
    "import": ["SOURCE", "DATASET", "--layout", "--extension", "--config"],
    "init": [
        "FOLDER",
        "--trigger",
        "--noun",
        "--describes",
        "--images",
        "--base",
        "--resolution",
        "--from-kohya",
        "--example",
    ],
    "judge": [
        *("STUDY", "--judge", "--votes", "--minutes", "--arm", "--results", "--port", "--browser", "--config"),
    ],
    "lint": ["[DATASET]...", "--json", "--config"],
    "probe": ["STUDY", "--config", "--device"],
    "report": ["STUDY", "--json", "--csv", "--card", "--config"],
    "sample": ["STUDY", "--profile", "--arms", "--config", "--device"],
    "score": ["STUDY", "--config", "--device"],
    "show": ["FILE", "--json"],
    "study": ["STUDY", "--config", "--plan", "--device"],
    "train": ["STUDY", "--config", "--device"],
    "waive": ["DATASET", "CHECK", "FILE", "--because", "--config"],
}
MOST = 12


def test_commands_and_options_are_the_listed_ones() -> None:
    assert {name: list(options(command)) for name, command in sorted(commands().items())} == OPTIONS


def test_no_command_has_more_than_a_dozen_options() -> None:
    assert all(len(options(command)) <= MOST for command in commands().values())


def test_every_command_and_option_has_help() -> None:
    for name, command in commands().items():
        assert command.help, name
        assert all(options(command).values()), name
