"""One arm's pictures: its LoRA merged, each text encoded once, large batches, PNGs written by threads meanwhile."""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from vez import __version__, interop
from vez.base import Base, Conditioning, decode_latents, encode_text
from vez.config import Precision, Prompt, Sampling
from vez.errors import LoraFileError
from vez.events import Sampled
from vez.nets.inference import FrozenDecoder, FrozenUNet
from vez.nets.packed import How
from vez.solver import denoise, moves, noise, noise_seed
from vez.store import write_atomic
from vez.sweep import Arm

A1111_SAMPLER = {"dpm++2m": "DPM++ 2M", "ddim": "DDIM"}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_DECODED_PIXELS = 4 * 128**2  # at once on a CPU: 26 ms of two cores a picture, and 22 where fewer are
_TRIES = 4000
_SHORT = ("ohwx", "bnha", "shs", "sks")
"""Words of one token that CLIP has and nobody means."""


@dataclass(frozen=True)
class Drawing:
    """One picture that is asked for: the ``seed``-th noise of a prompt; ``key`` is the hash of all that decides it."""

    prompt: Prompt
    seed: int
    file: str
    key: str


@dataclass(frozen=True)
class Brush:
    """The base and how it draws; the same for all arms."""

    base: Base
    sampling: Sampling
    precision: Precision | None = None
    """What the U-Net computes in; None: what the base has."""

    @property
    def dtype(self) -> torch.dtype:
        """What the U-Net computes in."""
        return self.base.dtype if self.precision is None else _DTYPES[self.precision]

    @property
    def dtype_name(self) -> str:
        """The same, as a manifest has it: "float32", "bf16", "fp16"."""
        halves = {torch.bfloat16: "bf16", torch.float16: "fp16"}
        return halves.get(self.dtype, str(self.dtype).removeprefix("torch."))

    @property
    def size(self) -> int:
        """Side of the pictures, in pixels."""
        return self.sampling.size or self.base.size

    def encode(self, prompts: Sequence[Prompt]) -> dict[str, Conditioning]:
        """Each different text's conditioning, the negative's too, always encoded in the same company."""
        different = list(dict.fromkeys([self.sampling.negative, *(prompt.text for prompt in prompts)]))
        parts = [encode_text(self.base, different[at : at + 32]) for at in range(0, len(different), 32)]
        whole = Conditioning.joined(parts)
        return {text: whole.at(slice(i, i + 1)) for i, text in enumerate(different)}

    def frozen(self) -> FrozenUNet:
        """The U-Net with the weights that it has now, for batches as large as the sampling's, guided ones twice."""
        pictures = self.sampling.batch * (1 if self.sampling.cfg == 1 else 2)
        return FrozenUNet(self.base.unet, How(self.dtype, pictures))

    @cached_property
    def decoder(self) -> FrozenDecoder | None:
        """The VAE's decoder, of which no arm changes anything; in bf16 where that is asked for, else in fp32."""
        dtype = torch.bfloat16 if self.dtype == torch.bfloat16 else torch.float32  # fp16 overflows in SDXL's
        return None if self.base.vae is None else FrozenDecoder(self.base.vae, How(dtype, self.decoded_at_once))

    @property
    def decoded_at_once(self) -> int:
        """Pictures that are decoded together: on a CPU as many as stay near its caches."""
        return 8 if self.base.device.type != "cpu" else max(1, _DECODED_PIXELS // self.size**2)

    def draw(
        self,
        asked: Sequence[tuple[Prompt, int]],
        texts: Mapping[str, Conditioning],
        *,
        arm: str,
        steps: int,
        unet: FrozenUNet | None = None,
    ) -> NDArray[np.uint8]:
        """Pictures (B, H, W, 3) of as many (prompt, noise) in one batch. Raises LoraFileError if not finite.

        By ``unet`` (`frozen`), which pays from a few steps on; without one by the base's networks as they are.
        """
        schedule, side = self.base.schedule, self.size // self.base.latent_factor
        latents = denoise(
            self.base,
            noise([seed for _, seed in asked], side, side),
            text=Conditioning.joined([texts[prompt.text] for prompt, _ in asked]),
            negative=texts[self.sampling.negative].each(len(asked)),
            walk=moves(
                schedule.alphas_cumprod.double().cpu().numpy(),
                steps,
                solver=self.sampling.solver,
                prediction_type=schedule.prediction_type,
            ),
            cfg=self.sampling.cfg,
            precision=self.precision,
            unet=unet,
        )
        if not torch.isfinite(latents).all():
            raise LoraFileError(
                f"the arm {arm!r} draws values that are not finite; its weights are broken: train it again at a lower "
                "rate"
            )
        decoder = None if unet is None else self.decoder
        return decode_latents(self.base, latents, batch=self.decoded_at_once, decoder=decoder)


def draw_arm(
    brush: Brush,
    name: str,
    arm: Arm,
    drawings: Sequence[Drawing],
    *,
    into: Path,
    plain: dict[str, Conditioning],
    pool: Executor,
) -> Iterator[Sampled]:
    """All pictures of one arm, batch by batch; a batch whose pictures all lie in ``into`` is passed over.

    Batches are fixed in composition, so a cut arm goes on with the same numbers: one that lacks a picture is drawn
    whole, and what lies there is left. ``plain`` keeps the base's own encodings from arm to arm; ``pool`` writes.
    """
    size = brush.sampling.batch
    batches = [drawings[at : at + size] for at in range(0, len(drawings), size)]
    missing = [[one for one in batch if not (into / one.file).is_file()] for batch in batches]
    prompts = [one.prompt for one in drawings]
    written: list[tuple[Future[None] | None, Sampled]] = []
    with merged(brush.base, arm if any(missing) else None) as adapted:
        texts: dict[str, Conditioning] = {}
        unet = brush.frozen() if any(missing) else None
        for batch, lacking in zip(batches, missing, strict=True):
            began, found = perf_counter(), len(written)
            pixels = np.empty(0, np.uint8)
            if lacking:
                texts = texts or _texts(brush, prompts, plain, adapted=adapted.text)
                pixels = brush.draw(
                    [(one.prompt, one.seed) for one in batch], texts, arm=name, steps=brush.sampling.steps, unet=unet
                )
            seconds = (perf_counter() - began) / len(batch)
            for i, one in enumerate(batch):
                event = Sampled(name, one.prompt.id, one.seed, into / one.file, seconds if one in lacking else 0.0)
                job = None
                if one in lacking:
                    said = parameters(
                        brush, one, label=label_of(name, arm), strength=arm.strength, sha256=adapted.sha256
                    )
                    job = pool.submit(write_picture, into / one.file, pixels[i], said)
                written.append((job, event))
            # What the threads wrote while this batch was drawn; it is told once it lies on the disk.
            yield from _told(written[:found])
            del written[:found]
        yield from _told(written)


def _told(written: Sequence[tuple["Future[None] | None", Sampled]]) -> Iterator[Sampled]:
    for job, event in written:
        if job is not None:
            job.result()
        yield event


def _texts(
    brush: Brush, prompts: Sequence[Prompt], plain: dict[str, Conditioning], *, adapted: bool
) -> dict[str, Conditioning]:
    if adapted:
        return brush.encode(prompts)
    if not plain:
        plain.update(brush.encode(prompts))
    return plain


@dataclass(frozen=True)
class Adapted:
    """A merged LoRA: A1111's hash of it, and whether it changes the text encoders."""

    sha256: str = ""
    text: bool = False


@contextmanager
def merged(base: Base, arm: Arm | None, *, strength: float | None = None) -> Iterator[Adapted]:
    """The base with an arm's LoRA in its weights; they are what they were afterwards, bit for bit.

    ``strength``: instead of the arm's own. Raises LoraFileError for a file that cannot be read or does not fit.
    """
    if arm is None or arm.lora is None:
        yield Adapted()
        return
    state, _ = interop.load_kohya(arm.lora)
    # A1111 knows a LoRA by the SHA-256 of its tensors alone, whatever the header says.
    data = arm.lora.read_bytes()
    body = hashlib.sha256(memoryview(data)[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    undo: Callable[[], None] = interop.merge(base, state, strength=arm.strength if strength is None else strength)
    try:
        yield Adapted(body, any(key.startswith("lora_te") for key in state))
    finally:
        undo()


def label_of(name: str, arm: Arm) -> str:
    """What a LoRA is called in a prompt: its arm without strength, a step as kohya's files are called; "" for none."""
    if arm.lora is None:
        return ""
    stem = name.partition("@")[0]
    return stem if arm.last else f"{stem}-{arm.step:06d}"


def parameters(brush: Brush, drawing: Drawing, *, label: str, strength: float, sha256: str) -> str:
    """The infotext that A1111 and its kin read back from a PNG's "parameters"."""
    base, sampling = brush.base, brush.sampling
    told = {
        "Steps": sampling.steps,
        "Sampler": A1111_SAMPLER[sampling.solver],
        "CFG scale": f"{sampling.cfg:g}",
        "Seed": noise_seed(drawing.seed),
        "Size": f"{brush.size}x{brush.size}",
        "Model hash": base.sha256[:10],
        "Model": _quoted(Path(base.name).name),
        "RNG": "CPU",
    }
    if label:
        told["Lora hashes"] = f'"{label}: {sha256[:12]}"'
    told["Version"] = f"vez {__version__}"
    lines = [f"{drawing.prompt.text} <lora:{label}:{strength:g}>" if label else drawing.prompt.text]
    if sampling.negative:
        lines.append(f"Negative prompt: {sampling.negative}")
    return "\n".join([*lines, ", ".join(f"{key}: {value}" for key, value in told.items())])


def _quoted(value: str) -> str:
    """A value as A1111 quotes it: only where its own separators stand in it."""
    return json.dumps(value, ensure_ascii=False) if set(value) & set(",:\n") else value


def write_picture(path: Path, picture: NDArray[np.uint8], said: str) -> None:
    """A PNG whose bytes depend on its pixels and text alone."""
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", said)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", pnginfo=info, compress_level=6)
    write_atomic(path, file.getvalue())


def wrong_trigger(base: Base, trigger: str) -> str:
    """A made-up word of as many tokens as ``trigger``, none of them the same: the same for the same tokenizer.

    Where none of many candidates has as many, the one that comes nearest.
    """
    own = _tokens(base, trigger)
    best, distance = "", float("inf")
    for i in range(_TRIES):
        word = _SHORT[i] if i < len(_SHORT) else _made_up(trigger, i, syllables=1 + i % (2 * len(own) + 2))
        tokens = _tokens(base, word)
        apart = abs(len(tokens) - len(own))
        if apart < distance and not set(tokens) & set(own):
            best, distance = word, apart
        if distance == 0:
            break
    return best


def _made_up(trigger: str, i: int, *, syllables: int) -> str:
    dice = hashlib.sha256(f"vez-wrong-1:{trigger}:{i}".encode()).digest()
    pairs = zip(dice[::2], dice[1::2], strict=True)
    letters = [("bdfgklmnprstvz"[a % 14], "aeiou"[b % 5]) for a, b in pairs]
    return "".join(consonant + vowel for consonant, vowel in letters[:syllables])


def _tokens(base: Base, word: str) -> list[int]:
    return base.tokenizer.bare(word)
