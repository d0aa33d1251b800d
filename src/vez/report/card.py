"""The model card: README.md for the Hugging Face Hub, beside the LoRA that the verdict names. Numbers and limits."""

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from vez.errors import StoreError
from vez.report.arms import Arm, arms_of
from vez.report.build import verdict_of
from vez.report.evidence import Evidence
from vez.report.figures import RUN_COLUMNS, run_lines
from vez.report.phrases import capital, counted, interval, name_of, plain, told
from vez.report.verdict import Verdict
from vez.report.view import data_parts, words_of
from vez.store import file_sha256, write_atomic

FOLDER = "card"
_MARK = "\n<!-- as vez wrote it: {} -->\n"  # the hash of what stands above it
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|!~])")


def write(evidence: Evidence, folder: Path, *, weight: float = 0.5, with_lora: bool = False) -> Path:
    """Write README.md into a folder, and beside it the LoRA that it is about; returns the card.

    No path of this machine and no licence stands in it: the person says the licence. A card that somebody has edited
    stays as it is, and the new one is README.new.md. Raises StoreError where it cannot be written.
    """
    verdict = verdict_of(evidence, weight=weight)
    arm = next((arm for arm in arms_of(evidence) if arm.name == (verdict.use or verdict.nearest)), None)
    card = folder / "README.md"
    if card.exists() and not _as_written(card):
        card = folder / "README.new.md"
    body = text(evidence, verdict, arm)
    write_atomic(card, f"{body}{_MARK.format(_sha256(body))}".encode())
    if with_lora and arm is not None and arm.run is not None and arm.file is not None:
        lora = arm.run.folder / Path(arm.file).name
        try:
            write_atomic(folder / file_name(evidence, arm), lora.read_bytes())
        except OSError as error:
            raise StoreError(f"{lora} cannot be read ({error.strerror}); train again, or leave --card out") from error
    return card


def _as_written(card: Path) -> bool:
    """Whether nobody has touched a card since it was made."""
    try:
        body, mark, rest = card.read_text(encoding="utf-8").rpartition(_MARK.partition("{}")[0])
    except (OSError, UnicodeDecodeError):
        return False
    return f"{mark}{rest}" == _MARK.format(_sha256(body))


def _sha256(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()


def file_name(evidence: Evidence, arm: Arm) -> str:
    """What the LoRA is called beside its card."""
    trigger = re.sub(r"[^\w.-]+", "-", words_of(evidence)["trigger"]) or evidence.study
    return f"{trigger}.safetensors"


def text(evidence: Evidence, verdict: Verdict, arm: Arm | None) -> str:
    """The card: front matter that the Hub reads, then what a reader needs to use the LoRA and to doubt it."""
    words = words_of(evidence)
    name = words["describes"] or words["trigger"] or evidence.study
    parts = [
        _front_matter(words),
        f"# {_plain(capital(name))}",
        f"A LoRA for {_plain(words['base']) or 'its base model'}, trained and judged with [vez](https://pypi.org/project/vez).",
        *_use(evidence, words, arm),
        "## What it does, and how sure that is",
        _plain(verdict.sentence),
        *(f"- {_plain(sentence)}" for sentence in verdict.sure),
        *_numbers(evidence, arm),
        "## Limits",
        *(f"- {_plain(sentence)}" for sentence in verdict.not_claimed),
        *(f"- {_plain(capital(fault.why))}" for fault in verdict.reserve),
        *_training(arm),
        *_data(evidence, arm),
        "## Licence",
        "Say which one, above (`license:`) and here. It has to agree with the base model’s and with those of the "
        "pictures.",
    ]
    return "\n\n".join(_joined(parts)) + "\n"


def _joined(parts: list[str]) -> list[str]:
    """Paragraphs; list items that follow each other belong to one."""
    found: list[str] = []
    for part in parts:
        if part.startswith("- ") and found and found[-1].startswith("- "):
            found[-1] += f"\n{part}"
        else:
            found.append(part)
    return found


def _front_matter(words: dict[str, str]) -> str:
    tags = ["text-to-image", "stable-diffusion", "diffusers", "lora", "template:sd-lora"]
    lines = ["---", "# license: say which one"]
    if _HUB_ID.fullmatch(words["base"]):
        lines.append(f"base_model: {_quoted(words['base'])}")
    if words["trigger"]:
        lines.append(f"instance_prompt: {_quoted(words['trigger'])}")
    return "\n".join([*lines, "library_name: diffusers", "tags:", *(f"- {_quoted(tag)}" for tag in tags), "---"])


def _use(evidence: Evidence, words: dict[str, str], arm: Arm | None) -> list[str]:
    if arm is None:
        return ["No LoRA of this study can be named yet."]
    asked = " ".join(word for word in (words["trigger"], words["noun"]) if word)
    file = file_name(evidence, arm)
    code = [
        "import torch",
        "from diffusers import AutoPipelineForText2Image",
        "",
        f"pipe = AutoPipelineForText2Image.from_pretrained({json.dumps(words['base'] or 'the base model')})",
        f'pipe.load_lora_weights(".", weight_name={json.dumps(file)})',
        f"pipe.fuse_lora(lora_scale={arm.strength:g})",
        f"image = pipe({json.dumps(f'a photo of {asked}', ensure_ascii=False)}).images[0]",
    ]
    return [
        "## Use",
        f"Trigger word: `{words['trigger'].replace('`', '')}`. Strength: {arm.strength:g}. File: `{file}`.",
        "\n".join(["```python", *code, "```"]),
    ]


def _numbers(evidence: Evidence, arm: Arm | None) -> list[str]:
    scores = evidence.scores
    if scores is None or arm is None:
        return ["Not measured."]
    tables = scores.confirmed if scores.confirmed and arm.name in scores.confirmed.arms else scores
    lines = ["| | mean | 95 % interval | n | against no LoRA |", "|---|---|---|---|---|"]
    for metric, score in tables.arms.get(arm.name, {}).items():
        change = tables.against_base.get(arm.name, {}).get(metric)
        beside = "–" if change is None else f"{change.verdict} ({told(change)})"
        cells = (name_of(metric), plain(score.mean), interval(score.low, score.high), counted(score), beside)
        lines.append(f"| {' | '.join(_plain(cell) for cell in cells)} |")
    about = "from prompts that had no say in the choice" if tables is not scores else "from the pictures that chose it"
    clip = scores.clip
    looked = ""
    if clip is not None and not clip.published:
        looked = " The CLIP that looked is not the published one: compare these numbers with nobody else’s."
    return ["\n".join(lines), f"The numbers are {about}; the prompt is the unit.{looked}"]


def _training(arm: Arm | None) -> list[str]:
    if arm is None or arm.run is None or arm.file is None:
        return []
    run = arm.run
    cells = run_lines([run], chosen_run=None)[0].cells
    said = ", ".join(f"{name} {cell}" for name, cell in zip(RUN_COLUMNS, cells, strict=True) if cell != "–")
    lora = run.folder / Path(arm.file).name
    sha256 = f" SHA-256 of the LoRA: `{file_sha256(lora)}`." if lora.is_file() else ""
    return ["## Training", f"{capital(said)}.{sha256}"]


def _data(evidence: Evidence, arm: Arm | None) -> list[str]:
    parents: dict[str, Any] = arm.run.artifact.parents if arm and arm.run and arm.run.artifact else {}
    said = []
    for part in data_parts(data for data in evidence.datasets if data.artifact.id in parents.values()):
        licences = Counter(source.licence or "not stated" for source in part.sources)
        unknown = part.train + part.held_out - sum(licences.values())
        told_ = ", ".join(f"{_plain(name)} ({n})" for name, n in sorted(licences.items()))
        if unknown > 0:
            told_ += f"{', ' if told_ else ''}not on record ({unknown})"
        said.append(
            f"{part.train} pictures to learn from, {part.held_out} held out; {part.hand} captions by hand. "
            f"Licences of the pictures: {told_ or 'none on record'}."
        )
    return ["## Data", *said] if said else []


def _plain(words: str) -> str:
    """Text as text: nothing in it is read as Markdown or HTML."""
    return _MARKUP.sub(r"\\\1", " ".join(words.split())).replace("\\<", "&lt;").replace("\\>", "&gt;")


def _quoted(words: str) -> str:
    """A YAML string, which JSON's are."""
    return json.dumps(words, ensure_ascii=True)
