"""prompts × seeds × arms → images: a small deterministic sampler, the same noise for the same seed in every arm.

DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, Algorithm 2) and DDIM (Song et al. 2020, arXiv 2010.02502, eq. 12)
with classifier-free guidance (Ho & Salimans 2022). Both are linear in what they combine, so a step is five numbers,
worked out beforehand in double precision. The timesteps are those that diffusers takes by default:
DPMSolverMultistepScheduler's "linspace" with a final sigma of 0 (first order in the last step), and for DDIM the
"leading" spacing with an offset of 1 that Stable Diffusion's own configuration asks for; "trailing" where the schedule
ends in pure noise (Lin et al. 2023).
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor

from vez import __version__, interop
from vez.base import Base, Conditioning, decode_latents, encode_text, predict
from vez.config import Project, Prompt, Sampling
from vez.errors import ConfigError, LoraFileError, StoreError
from vez.events import Done, Event, Sampled, Stage
from vez.store import artifact_id, file_sha256, find, making, open_artifact, write_atomic

VERSION = 1
"""Counts up when the same inputs would give other pixels or other rows."""

BASE_ARM = "base"
"""The customary name of the arm without a LoRA."""

ROWS = "samples.jsonl"
_NEARLY_NOISE = 2.0**-24  # diffusers' stand-in for a signal of 0, whose logarithm the solver could not take
A1111_SAMPLER = {"dpm++2m": "DPM++ 2M", "ddim": "DDIM"}


@dataclass(frozen=True)
class Move:
    """One step of a solver: clean = p·x + q·out; x' = a·x + b·clean + c·(the clean of the step before)."""

    timestep: int
    p: float
    q: float
    a: float
    b: float
    c: float


def moves(
    alphas_cumprod: NDArray[np.float64],
    steps: int,
    *,
    solver: Literal["dpm++2m", "ddim"] = "dpm++2m",
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
) -> tuple[Move, ...]:
    """A solver's whole walk from noise to picture.

    Args:
        alphas_cumprod: (T,) the base's noise schedule.
        steps: how many times the U-Net is asked; at most T - 1.
        solver: "dpm++2m" or "ddim".
        prediction_type: what the U-Net's output is.
    Raises:
        ConfigError: more steps than the schedule has different timesteps for.
    """
    trained = len(alphas_cumprod)
    if not 1 <= steps < trained:
        raise ConfigError(f"sampling.steps is {steps}, but this base has {trained} timesteps; take fewer than that")
    pure_noise = alphas_cumprod[-1] == 0  # a zero terminal SNR: the walk must begin at the very last timestep
    if pure_noise and prediction_type == "epsilon":
        raise ConfigError("epsilon says nothing about pure noise: a schedule of zero terminal SNR needs v_prediction")
    if solver == "ddim":
        ratio = trained // steps
        timesteps = np.arange(steps)[::-1] * ratio + 1
        if pure_noise:
            timesteps = np.arange(trained, 0, -trained / steps).round().astype(np.int64) - 1
        # Past the first timestep there is no cleaner level than the first (set_alpha_to_one = false).
        target = alphas_cumprod[np.maximum(timesteps - ratio, 0)]
    else:
        alphas_cumprod = np.maximum(alphas_cumprod, _NEARLY_NOISE)
        timesteps = np.linspace(0, trained - 1, steps + 1).round()[::-1][:-1].astype(np.int64)
        target = np.append(alphas_cumprod[timesteps[1:]], 1.0)
    source = alphas_cumprod[timesteps]
    alpha, sigma = np.sqrt(source), np.sqrt(1 - source)
    alpha_to, sigma_to = np.sqrt(target), np.sqrt(1 - target)
    p, q = (1 / alpha, -sigma / alpha) if prediction_type == "epsilon" else (alpha, -sigma)
    a = sigma_to / sigma
    first_order = alpha_to - alpha * a  # = -alpha_to·(exp(-h) - 1), h the step in log(alpha/sigma)
    extrapolate = np.zeros(steps)
    if solver == "dpm++2m":
        half_logsnr = np.log(alpha / sigma)
        for i in range(1, steps - 1):  # the first has no step before it; the last, to sigma 0, is of first order
            r = (half_logsnr[i] - half_logsnr[i - 1]) / (np.log(alpha_to[i] / sigma_to[i]) - half_logsnr[i])
            extrapolate[i] = 0.5 / r
    b, c = first_order * (1 + extrapolate), -first_order * extrapolate
    columns = zip(timesteps, p, q, a, b, c, strict=True)
    return tuple(Move(int(t), *(float(value) for value in row)) for t, *row in columns)


def noise_seed(i: int) -> int:
    """The seed of the i-th noise, the same for every prompt, arm and study: 32 bits of sha256("vez-eval-1:<i>")."""
    return int.from_bytes(hashlib.sha256(f"vez-eval-1:{i}".encode()).digest()[:4], "big")


def noise(seeds: Sequence[int], height: int, width: int) -> Tensor:
    """Starting latents (N, 4, height, width) fp32, drawn on the CPU, each from its own `noise_seed`."""
    shape = (1, 4, height, width)
    return torch.cat([torch.randn(shape, generator=torch.Generator().manual_seed(noise_seed(i))) for i in seeds])


@torch.inference_mode()
def denoise(
    base: Base,
    latents: Tensor,
    *,
    text: Conditioning,
    negative: Conditioning,
    walk: Sequence[Move],
    cfg: float,
    bf16: bool = False,
) -> Tensor:
    """Walk from noise (B, 4, h, w) to clean scaled latents (B, 4, h, w) fp32 on the base's device.

    ``text`` and ``negative`` are of B texts each. Both are asked in one forward pass; without guidance (cfg = 1) only
    the text is. ``bf16`` lets the U-Net multiply in bfloat16; the walk itself is always fp32. A base that is told sizes
    is told that the picture was this large and nothing was cut off.
    """
    x = latents.to(base.device, torch.float32)
    guided = cfg != 1
    asked_for = Conditioning.joined([negative, text]) if guided else text
    height, width = (side * base.latent_factor for side in x.shape[2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(asked_for), dtype=torch.float32, device=x.device)
    before: Tensor | None = None
    for move in walk:
        asked = torch.cat([x, x]) if guided else x  # (2B, 4, h, w)
        with torch.autocast(base.device.type, torch.bfloat16, enabled=bf16):
            out = predict(base, asked, move.timestep, text=asked_for, sizes=sizes).float()
        if guided:
            without, with_text = out.chunk(2)
            out = without + cfg * (with_text - without)
        clean = move.p * x + move.q * out
        x = move.a * x + move.b * clean
        if before is not None and move.c != 0:
            x = x + move.c * before
        before = clean
    return x


def sample(
    base: Base,
    arms: Mapping[str, Path | None],
    prompts: Sequence[Prompt],
    *,
    sampling: Sampling,
    into: Path,
    project: Project | None = None,
    bf16: bool = False,
) -> Iterator[Event]:
    """Draw every prompt with every seed in every arm; the last event is Done.

    The artifact at ``into`` holds ``<arm>/<prompt id>-<i>.png`` and samples.jsonl, a row
    {arm, prompt, group, role, text, context, seed, noise_seed, file} per image. Cut short and called again it goes on
    and gives the same bytes (on the same machine with as many threads): batches are fixed in composition, and one that
    lacks an image is drawn again whole.

    Args:
        base: the base; a LoRA is merged into it for its arm and taken out again.
        arms: name → LoRA file in kohya's layout, None for the base alone.
        prompts: each with an id of its own.
        sampling: steps, guidance, solver, seeds, size, batch, negative prompt.
        into: the artifact's folder.
        project: fills {trigger}, {noun} and {describes} in the prompts; None: the prompts are taken as they stand.
        bf16: let the U-Net multiply in bfloat16: faster on most machines, other pixels than fp32.
    Raises:
        ConfigError: prompts without an id or with a placeholder that nothing fills, arms or sizes that cannot be.
        LoraFileError: a LoRA that cannot be read, does not fit, or makes values that are not finite.
        StoreError: ``into`` cannot be written.
    """
    drawn = _check(base, arms, prompts, sampling, project)
    parents, config = _recipe(base, arms, drawn, sampling, bf16)
    total = len(arms) * len(drawn) * sampling.seeds
    yield Stage("sample", total, f"{len(arms)} arms × {len(drawn)} prompts × {sampling.seeds} seeds")
    id = artifact_id("samples", parents, config, VERSION)
    if find(into, id) is None:
        with making(into, kind="samples", parents=parents, config=config, version=VERSION) as m:
            for arm, path in arms.items():
                yield from _draw_arm(base, arm, path, drawn, sampling=sampling, into=m.path, bf16=bf16)
            rows = (json.dumps(row, ensure_ascii=False) for row in _rows(arms, drawn, sampling.seeds))
            write_atomic(m.path / ROWS, "".join(f"{row}\n" for row in rows).encode())
    yield Done(into, id)


def read_rows(samples: Path) -> list[dict[str, Any]]:
    """The rows of a finished samples artifact. Raises StoreError where there is none or a line is not a row."""
    artifact = open_artifact(samples)
    try:
        return [json.loads(line) for line in (artifact.path / ROWS).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise StoreError(f"{samples / ROWS} cannot be read ({error}); delete {samples} and sample again") from error


def _check(
    base: Base, arms: Mapping[str, Path | None], prompts: Sequence[Prompt], sampling: Sampling, project: Project | None
) -> list[Prompt]:
    """The prompts with their placeholders filled; ConfigError for what cannot be drawn."""
    if not arms or not prompts:
        raise ConfigError("nothing to sample: give at least one arm and one prompt")
    for arm in arms:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", arm):
            raise ConfigError(f"the arm {arm!r} cannot be a folder's name; use letters, digits, dot, dash, underscore")
    ids = [prompt.id for prompt in prompts]
    if "" in ids or len(set(ids)) != len(ids):
        raise ConfigError(f"every prompt needs an id of its own, not {ids}")
    size = sampling.size or base.size
    if size % base.latent_factor:
        raise ConfigError(f"sampling.size is {size}; this base draws sizes that divide by {base.latent_factor}")
    drawn = []
    for prompt in prompts:
        text = project.expand(prompt.text) if project else prompt.text
        context = project.expand(prompt.context) if project else prompt.context
        if re.search(r"\{(trigger|noun|describes)\}", text + context):
            raise ConfigError(f"the prompt {prompt.text!r} has a placeholder and nothing fills it; give the project")
        drawn.append(prompt.model_copy(update={"text": text, "context": context}))
    return drawn


def _recipe(
    base: Base, arms: Mapping[str, Path | None], prompts: Sequence[Prompt], sampling: Sampling, bf16: bool
) -> tuple[dict[str, str], dict[str, Any]]:
    """What the images are made of: the artifact's parents and configuration."""
    loras = {arm: _sha256(path) for arm, path in arms.items() if path is not None}
    parents = {"base": base.sha256}
    for arm, path in arms.items():
        if path is not None:
            parents[f"run:{arm}"] = _run_id(path) or loras[arm]
    config = {
        "sampling": sampling.model_dump() | {"size": sampling.size or base.size},
        "arms": {arm: loras.get(arm) for arm in arms},
        "prompts": [prompt.model_dump() for prompt in prompts],
        "dtype": "bf16" if bf16 else str(base.dtype).removeprefix("torch."),
        "trained_on": base.name,
    }
    return parents, config


def _run_id(lora: Path) -> str | None:
    """The id of the run that a LoRA file lies in; None for a file from elsewhere."""
    try:
        return open_artifact(lora.parent).id
    except StoreError:
        return None


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise LoraFileError(
            f"cannot read the LoRA {path}: {error.strerror}; train it first, or name another"
        ) from error


def _draw_arm(
    base: Base, arm: str, lora: Path | None, prompts: Sequence[Prompt], *, sampling: Sampling, into: Path, bf16: bool
) -> Iterator[Event]:
    """All images of one arm, batch by batch; batches whose images are all there are passed over."""
    images = [(prompt, i) for prompt in prompts for i in range(sampling.seeds)]
    batches = [images[at : at + sampling.batch] for at in range(0, len(images), sampling.batch)]
    to_draw = [batch for batch in batches if not all((into / _file(arm, p.id, i)).is_file() for p, i in batch)]
    undo, label = _merged(base, arm, lora) if to_draw else (lambda: None, "")
    try:
        texts = _encode(base, [sampling.negative, *(prompt.text for prompt in prompts)]) if to_draw else {}
        for batch in batches:
            if batch in to_draw:
                pixels = _draw(base, arm, batch, texts=texts, sampling=sampling, bf16=bf16)
                for (prompt, i), picture in zip(batch, pixels, strict=True):
                    text = _parameters(base, prompt.text, i, sampling=sampling, lora=label)
                    write_atomic(into / _file(arm, prompt.id, i), _png(picture, text))
            for prompt, i in batch:
                yield Sampled(arm, prompt.id, i, into / _file(arm, prompt.id, i))
    finally:
        undo()


def _merged(base: Base, arm: str, lora: Path | None) -> tuple[Callable[[], None], str]:
    """Merge an arm's LoRA; returns what takes it out again, and its A1111 name and hash ("v1: 0123456789ab")."""
    if lora is None:
        return (lambda: None), ""
    state, _ = interop.load_kohya(lora)
    # A1111 knows a LoRA by the SHA-256 of its tensors alone, whatever the header says.
    data = lora.read_bytes()
    body = hashlib.sha256(memoryview(data)[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    return interop.merge(base, state), f"{arm}: {body[:12]}"


def _encode(base: Base, texts: Sequence[str]) -> dict[str, Conditioning]:
    """Each text's conditioning, encoded once per arm and always in the same company."""
    different = list(dict.fromkeys(texts))
    parts = [encode_text(base, different[at : at + 32]) for at in range(0, len(different), 32)]
    whole = Conditioning.joined(parts)
    return {text: whole.at(slice(i, i + 1)) for i, text in enumerate(different)}


def _draw(
    base: Base,
    arm: str,
    batch: Sequence[tuple[Prompt, int]],
    *,
    texts: Mapping[str, Conditioning],
    sampling: Sampling,
    bf16: bool,
) -> NDArray[np.uint8]:
    """One batch of an arm, (B, H, W, 3) uint8."""
    side = (sampling.size or base.size) // base.latent_factor
    schedule = base.schedule
    latents = denoise(
        base,
        noise([i for _, i in batch], side, side),
        text=Conditioning.joined([texts[prompt.text] for prompt, _ in batch]),
        negative=texts[sampling.negative].each(len(batch)),
        walk=moves(
            schedule.alphas_cumprod.double().cpu().numpy(),
            sampling.steps,
            solver=sampling.solver,
            prediction_type=schedule.prediction_type,
        ),
        cfg=sampling.cfg,
        bf16=bf16,
    )
    if not torch.isfinite(latents).all():
        raise LoraFileError(
            f"the arm {arm!r} draws values that are not finite; its weights are broken: train it again at a lower rate"
        )
    return decode_latents(base, latents)


def _rows(arms: Mapping[str, Path | None], prompts: Sequence[Prompt], seeds: int) -> Iterator[dict[str, Any]]:
    for arm in arms:
        for prompt in prompts:
            for i in range(seeds):
                yield {
                    "arm": arm,
                    "prompt": prompt.id,
                    "group": prompt.group,
                    "role": prompt.role,
                    "text": prompt.text,
                    "context": prompt.context,
                    "seed": i,
                    "noise_seed": noise_seed(i),
                    "file": _file(arm, prompt.id, i),
                }


def _file(arm: str, prompt: str, i: int) -> str:
    return f"{arm}/{prompt}-{i}.png"


def _parameters(base: Base, text: str, i: int, *, sampling: Sampling, lora: str) -> str:
    """The infotext that A1111 and its kin read back from a PNG's "parameters"."""
    name, _, short = lora.partition(": ")
    size = sampling.size or base.size
    told = {
        "Steps": sampling.steps,
        "Sampler": A1111_SAMPLER[sampling.solver],
        "CFG scale": f"{sampling.cfg:g}",
        "Seed": noise_seed(i),
        "Size": f"{size}x{size}",
        "Model hash": base.sha256[:10],
        "Model": _quoted(Path(base.name).name),
        "RNG": "CPU",
    }
    if lora:
        told["Lora hashes"] = f'"{name}: {short}"'
    told["Version"] = f"vez {__version__}"
    lines = [f"{text} <lora:{name}:1>" if lora else text]
    if sampling.negative:
        lines.append(f"Negative prompt: {sampling.negative}")
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in told.items())])


def _quoted(value: str) -> str:
    """A value as A1111 quotes it: only where its own separators stand in it."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def _png(picture: NDArray[np.uint8], parameters: str) -> bytes:
    """A PNG whose bytes depend on its pixels and text alone."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", parameters)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", pnginfo=info, compress_level=6)
    return file.getvalue()
