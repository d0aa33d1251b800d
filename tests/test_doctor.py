"""`vez doctor`: what it looks at, and that it says what is wrong and what to do about it."""

from pathlib import Path

import pytest

from vez import demo, doctor
from vez.doctor import Fact, State, examine


def test_it_names_what_matters_and_changes_nothing(tmp_path: Path) -> None:
    facts = {fact.name: fact for fact in examine(tmp_path)}
    assert {"vez", "torch", "diffusers", "torchvision", "device", "fp16", "cores", "memory", "disk", "demo"} <= set(
        facts
    )
    assert facts["fp16"].value.startswith(("works, ", "does not work"))
    assert facts["torch"].state is State.FINE
    assert facts["torchvision"].value == "absent, as it should be"
    assert list(tmp_path.iterdir()) == []


def test_whatever_is_not_fine_comes_with_advice(tmp_path: Path) -> None:
    assert all(fact.advice for fact in examine(tmp_path) if fact.state is not State.FINE)


def test_torchvision_is_explained() -> None:
    fact = doctor._torchvision(installed=True)
    assert fact.state is State.WARNING
    assert "operator torchvision::nms" in fact.advice
    assert "pip uninstall torchvision" in fact.advice


def test_little_memory_is_a_warning_and_a_missing_package_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor._enough("memory", 3.0, 8, "close other programs").state is State.WARNING
    monkeypatch.setattr(doctor, "CORE", ("a-package-that-is-not-there",))
    (fact,) = doctor._packages()
    assert fact.is_broken


def test_damaged_weights_are_named() -> None:
    fact = doctor._demo(["base/unet/diffusion_pytorch_model.safetensors", "a", "b", "c", "d"])
    assert fact.is_broken
    assert "base/unet/diffusion_pytorch_model.safetensors" in fact.value
    assert "2 more" in fact.value
    assert doctor._demo([]) == Fact("demo", "the embedded base is there and intact")


def test_the_sums_cover_every_weight_file() -> None:
    root = Path(demo.__file__).parent
    sums = (root / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    named = {line.partition("  ")[2] for line in sums}
    weights = {p.relative_to(root).as_posix() for p in root.rglob("*.safetensors")}
    assert weights, "the embedded base is missing"
    again = "cd src/vez/demo && sha256sum $(find base clip blip oracle -type f | sort) > SHA256SUMS"
    assert weights <= named, f"make the sums again: {again}"
    assert demo.damaged_weights() == [], f"if that is meant, make the sums again: {again}"


PROJECT = '[project]\nbase = "{base}"\ntrigger = "zolka"\nnoun = "costume"\ndescribes = "folk costume"\n'


def test_the_projects_base_is_named_with_its_family(tmp_path: Path, random_base_folder: Path) -> None:
    def told(base: str) -> Fact:
        (tmp_path / "vez.toml").write_text(PROJECT.format(base=base), encoding="utf-8")
        return doctor._project(tmp_path)[0]

    assert told("tiny") == Fact("base", "tiny: a small base of SD 1.x layout")
    (tmp_path / "mine").symlink_to(random_base_folder, target_is_directory=True)
    assert told("mine").value == "mine: a small base of SD 1.x layout"
    away = told("nobody/has-this")
    assert away.state is State.OPTIONAL and "not on this machine" in away.value
    (tmp_path / "vez.toml").write_text("[project]\nbasse = 1\n", encoding="utf-8")
    (broken,) = doctor._project(tmp_path)
    assert broken.is_broken and 'did you mean "base"' in broken.value
