"""`vez convert` and `vez show` as a person types them: what they print, what they write, how they refuse."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from loras import FC1, TO_Q, deltas, same, small
from safetensors.torch import load_file
from test_bases import lora_for
from typer.testing import CliRunner, Result

from vez.cli import MISTAKE, app
from vez.files.reading import read
from vez.files.writing import write
from vez.interop import LoraWeights


def vez(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path / "a.safetensors", small(alpha=3.0), layout="kohya", dtype=torch.float32)
    return tmp_path / "a.safetensors"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.safetensors"


def test_to_another_layout_and_precision(file: Path, out: Path) -> None:
    result = vez("convert", file, out, "--to", "diffusers", "--dtype", "fp16")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(
        f"Wrote {out}: SD 1.x layout in sizes of its own, 6 modules, diffusers layout, float16"
    )
    found = read(out)
    assert found.layout == "diffusers" and found.dtype == torch.float16
    same(found, read(file), rtol=1e-2, atol=1e-2)


def test_without_dtype_the_precision_stays_the_finest(file: Path, out: Path, tmp_path: Path) -> None:
    write(tmp_path / "half.safetensors", small(seed=1), layout="kohya", dtype=torch.float16)
    vez("convert", tmp_path / "half.safetensors", out)
    assert read(out).dtype == torch.float16
    assert vez("convert", tmp_path / "half.safetensors", file, out, "--force").exit_code == 0
    assert read(out).dtype == torch.float32


def test_several_by_weights(file: Path, out: Path, tmp_path: Path) -> None:
    write(tmp_path / "b.safetensors", small(seed=1), layout="diffusers", dtype=torch.float32)
    result = vez("convert", file, tmp_path / "b.safetensors", out, "--weight", "0.5", "--weight", "-1")
    assert result.exit_code == 0, result.output
    a, b, made = deltas(read(file)), deltas(read(tmp_path / "b.safetensors")), deltas(read(out))
    for place, delta in made.items():
        torch.testing.assert_close(delta, 0.5 * a[place] - b[place], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "rank"), [(["--rank", "2"], 2), (["--energy", "1.0"], 4), (["--sv-ratio", "1"], 1)]
)
def test_ranks(options: list[str], rank: int, file: Path, out: Path) -> None:
    result = vez("convert", file, out, *options)
    assert result.exit_code == 0, result.output
    assert {w.rank for w in read(out).modules.values()} == {rank}
    assert f"of the energy (squared singular values) at rank {rank}." in result.output


def test_into_a_base_and_out_again(random_base_folder: Path, tmp_path: Path, out: Path) -> None:
    lora = lora_for(random_base_folder)
    write(tmp_path / "a.safetensors", lora, layout="kohya", dtype=torch.float32)
    result = vez("convert", tmp_path / "a.safetensors", tmp_path / "merged", "--into", random_base_folder)
    assert result.exit_code == 0, result.output
    assert result.output.endswith(f"with 1 LoRA added, {len(lora.modules)} modules changed\n")
    result = vez("convert", tmp_path / "merged", out, "--minus", random_base_folder, "--rank", 3, "--dtype", "fp32")
    assert result.exit_code == 0, result.output
    same(read(out), lora, rtol=1e-2, atol=1e-3)
    assert vez("convert", tmp_path / "merged", tmp_path / "h.safetensors", "--minus", random_base_folder, "--rank", 3)
    assert read(tmp_path / "h.safetensors").dtype == torch.float16


def test_strip(tmp_path: Path, out: Path) -> None:
    private = {"ss_tag_frequency": '{"1_me": {"my name": 3}}', "ss_network_dim": "4", "modelspec.title": "me"}
    write(tmp_path / "a.safetensors", replace(small(), metadata=private), layout="kohya", dtype=torch.float32)
    vez("convert", tmp_path / "a.safetensors", out, "--strip")
    assert set(read(out).metadata) == {"ss_network_dim", "sshs_model_hash", "sshs_legacy_hash"}
    assert b"my name" not in out.read_bytes()
    vez("convert", tmp_path / "a.safetensors", out, "--force")
    assert read(out).metadata["ss_tag_frequency"] == private["ss_tag_frequency"]


def test_force_replaces_a_file_and_nothing_else_does(file: Path, out: Path) -> None:
    out.write_bytes(b"mine")
    result = vez("convert", file, out)
    assert result.exit_code == MISTAKE and "exists" in result.output and out.read_bytes() == b"mine"
    assert vez("convert", file, out, "--force").exit_code == 0
    assert load_file(out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["FILE", "OUT", "--rank", "0"], "rank of 0"),
        (["FILE", "OUT", "--energy", "98"], "share above 0"),
        (["FILE", "OUT", "--weight", "1", "--weight", "2"], "1 LoRAs and 2 --weight"),
        (["FILE", "OUT", "--weight", "nan"], "no finite number"),
        (["FILE", "OUT", "--weight", "0"], "nothing is left"),
        (["no.safetensors", "OUT"], "cannot be read"),
        (["FILE", "FILE", "OUT", "--minus", "tiny", "--rank", "4"], "one model"),
        (["FILE", "OUT", "--minus", "tiny", "--rank", "4"], "is a LoRA, not a base"),
        (["FILE", "OUT", "--into", "tiny", "--minus", "tiny"], "--into writes a base"),
        (["FILE", "OUT", "--into", "tiny", "--dtype", "fp16"], "--into writes a base"),
        (["FILE", "OUT", "--into", "tiny"], "for another"),
        (["FILE", "OUT", "--into", "./nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(words: list[str], said: str, file: Path, out: Path) -> None:
    names = {"FILE": str(file), "OUT": str(out)}
    result = vez("convert", *(names.get(word, word) for word in words))
    assert result.exit_code == MISTAKE, result.output
    assert said in result.output and result.output.startswith("vez: ") and result.output.count("\n") == 1
    assert not out.exists()


def test_show_for_a_person(tmp_path: Path) -> None:
    lora = small(ranks={TO_Q: 2})
    silent = LoraWeights(lora.modules[FC1].down, torch.zeros(24, 4), 2.0)
    texts = {"ss_training_comment": "\x1b[2J\u202ehidden\nsecond line", "ss_tag_frequency": "x" * 5000}
    lora = replace(lora, modules=lora.modules | {FC1: silent}, metadata=texts)
    write(tmp_path / "a.safetensors", lora, layout="kohya", dtype=torch.float16)
    result = vez("show", tmp_path / "a.safetensors")
    assert result.exit_code == 0, result.output
    assert "kohya layout, float16" in result.output
    assert "unet: 4 modules, rank 2 (×1), 4 (×3), alpha 2, norm" in result.output
    assert "text_encoder: 2 modules, rank 4, alpha 2, norm" in result.output
    assert "1 modules add nothing" in result.output
    assert r"ss_training_comment: \x1b[2J\u202ehidden\x0asecond line" in result.output
    assert "\x1b" not in result.output and "\u202e" not in result.output
    assert max(map(len, result.output.splitlines())) < 400


def test_show_for_a_program(file: Path) -> None:
    facts = json.loads(vez("show", file, "--json").output)
    lora = read(file)
    assert (facts["family"], facts["layout"], facts["dtype"]) == ("tiny", "kohya", "float32")
    assert facts["bytes"] == file.stat().st_size and facts["metadata"]["ss_output_name"] == "v1"
    assert len(facts["modules"]) == 6
    for module, (place, weights) in zip(facts["modules"], lora.modules.items(), strict=True):
        assert (module["network"], module["path"]) == place
        assert (module["rank"], module["alpha"]) == (4, 3.0)
        assert module["norm"] == pytest.approx(float(weights.delta().norm()), rel=1e-5)
        assert module["shape"] == [weights.up.shape[0], *weights.down.shape[1:]]


def test_show_refuses_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"no")
    result = vez("show", tmp_path / "x.safetensors")
    assert result.exit_code == MISTAKE and result.output.count("\n") == 1
