import subprocess
import sys
from pathlib import Path


def alone(code: str) -> str:
    source = str(Path(__file__).parents[1] / "src")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {source!r})\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_import_and_the_build_stage_bring_no_torch() -> None:
    assert alone("import vez; vez.load_config; vez.build; print('torch' in sys.modules)") == "False"


def test_a_stage_stays_a_stage_when_its_module_is_imported_first() -> None:
    code = (
        "import types, vez; m = types.ModuleType('vez.train'); m.train = len; sys.modules['vez.train'] = vez.train = m"
    )
    assert alone(code + "; print(vez.train is len)") == "True"


def test_unknown_names_are_refused() -> None:
    assert alone("import vez; print(hasattr(vez, 'nothing'), 'build' in dir(vez))") == "False True"
