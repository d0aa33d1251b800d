"""The docs cannot lag: the reference is generated, and every command, key and module has its place in a page."""

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from vez import reference
from vez.config import Project, Study, Variant
from vez.config.block import Block
from vez.events import Event
from vez.reference import TABLES, commands, options

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_reference_is_what_the_code_says() -> None:
    assert (DOCS / "reference.md").read_text(encoding="utf-8") == reference.text(), "run: make reference"


def test_check_and_write_agree(tmp_path: Path) -> None:
    page = tmp_path / "reference.md"
    assert reference.main(["--check", str(page)]) == 1
    assert reference.main(["--write", str(page)]) == 0
    assert reference.main(["--check", str(page)]) == 0
    page.write_text(page.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert reference.main(["--check", str(page)]) == 1


def test_every_command_option_and_key_is_in_the_reference() -> None:
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    for name, command in commands().items():
        assert f"### `vez {name}`" in page
        assert all(f"`{option}`" in page for option in options(command)), name
    for heading, model in TABLES:
        section = page.split(f"### `{heading}`")[1].split("###")[0]
        for key, field in model.model_fields.items():
            assert f"| `{key}` |" in section, f"{heading} {key}"
            assert field.description, f"{heading} {key} has no docstring"


ABOUT_THE_CONCEPT = {"trigger", "noun", "describes", "lookalikes", "gallery", "kind", "public"}


@pytest.mark.parametrize(
    ("heading", "keys"),
    [
        ("## The base", Project.model_fields.keys() - ABOUT_THE_CONCEPT),
        ("## The study", Study.model_fields.keys()),
        ("## Size", Variant.model_fields.keys()),
    ],
)
def test_every_key_has_its_row_in_the_page_about_training(heading: str, keys: Iterable[str]) -> None:
    """With its unit, its effect and kohya's name for it."""
    page = (DOCS / "train.md").read_text(encoding="utf-8")
    section = page.split(heading)[1]
    if heading != "## Size":  # a variant's keys stand in all that follows
        section = section.split("\n## ")[0]
    for key in keys:
        row = next((line for line in section.splitlines() if line.startswith(f"| `{key}` |")), "")
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) == 4 and all(cells), f"{key}: {row}"


def test_every_key_of_a_block_has_its_row_too() -> None:
    page = (DOCS / "train.md").read_text(encoding="utf-8").split("### Blocks")[1].split("\n## ")[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("| its `")]
    assert all(len(cells) == 4 and all(cell.strip() for cell in cells) for cells in rows)
    assert {name for cells in rows for name in re.findall(r"`(\w+)`", cells[0])} == set(Block.model_fields)


def test_every_event_and_its_fields_are_in_the_page_of_files() -> None:
    page = (DOCS / "files.md").read_text(encoding="utf-8")
    for kind in get_args(Event):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{kind.__name__.lower()}` |")]
        assert all(f"`{field.name}`" in row for field in fields(kind)), kind.__name__


def test_every_module_is_on_the_map() -> None:
    page = (DOCS / "design.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "vez"
    names = {p.name for p in source.glob("*.py") if not p.name.startswith("__")}
    names |= {f"{p.name}/" for p in source.iterdir() if (p / "__init__.py").exists()}
    assert not {name for name in names if name not in page}


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench" / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
