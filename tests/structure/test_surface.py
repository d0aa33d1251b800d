"""The public names: listed once, complete, documented."""

import ast
from pathlib import Path

import vez

# Listed here too: a name is added to the public surface on purpose, or not at all.
PUBLIC = {
    "Config",
    "VezError",
    "__version__",
    "build",
    "collect",
    "curate",
    "load_config",
    "load_dataset",
    "report",
    "sample",
    "score",
    "study",
    "train",
}
SOURCE = Path(__file__).parents[2] / "src" / "vez"


def test_every_public_name_loads_and_has_a_docstring() -> None:
    for name in vez.__all__:
        value = getattr(vez, name)
        assert value is not None
        if not name.startswith("__"):
            assert value.__doc__, name
    assert set(vez.__all__) <= set(dir(vez))
    assert set(vez.__all__) == PUBLIC


def test_an_unknown_name_is_refused() -> None:
    try:
        vez.nothing_of_this_name  # noqa: B018
    except AttributeError as error:
        assert "nothing_of_this_name" in str(error)
    else:
        raise AssertionError


def test_public_functions_and_classes_have_docstrings_and_types() -> None:
    missing = []
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if ast.get_docstring(tree) is None and path.read_text(encoding="utf-8").strip():
            missing.append(path.name)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                if ast.get_docstring(node) is None:
                    missing.append(f"{path.name}:{node.name}")
                if isinstance(node, ast.FunctionDef) and node.returns is None:
                    missing.append(f"{path.name}:{node.name} has no return type")
    assert not missing, missing
