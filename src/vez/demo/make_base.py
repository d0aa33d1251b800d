"""Make the embedded base from nothing: `python -m vez.demo.make_base --work build/base`.

One stage after another, each resumable; what is finished is not made again. The stages draw the world, train
autoencoder, tokenizer and text encoder, U-Net, CLIP, BLIP and oracle, write them as fp16 safetensors beside the
package's code, and measure the result into the model card.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextModel, CLIPTokenizer

from vez.demo import oracle
from vez.demo.recipe import autoencoder, denoiser, judges, text
from vez.demo.recipe.figures import measure, page
from vez.demo.recipe.loop import Plan
from vez.demo.recipe.pictures import drawn
from vez.demo.world.people import Person
from vez.demo.world.scene import Scene
from vez.demo.world.words import describe

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Size:
    """How much is drawn and how long is trained."""

    pictures: int
    judged: int
    vae: int
    reading: int
    unet: int
    decoder: int
    judge: int
    batch: int
    prompts: int


SIZES = {
    "smoke": Size(pictures=96, judged=96, vae=2, reading=2, unet=2, decoder=2, judge=2, batch=8, prompts=4),
    "cpu": Size(
        pictures=20_000,
        judged=10_000,
        vae=3_000,
        reading=500,
        unet=3_500,
        decoder=1_300,
        judge=700,
        batch=48,
        prompts=512,
    ),
    "gpu": Size(
        pictures=80_000,
        judged=30_000,
        vae=60_000,
        reading=2_000,
        unet=120_000,
        decoder=20_000,
        judge=12_000,
        batch=128,
        prompts=512,
    ),
}
"""`cpu`: two to three hours on two cores; `gpu`: about as long on one large card; `smoke`: seconds, for the tests."""


class Maker:
    """The work folder, the target folder and what has been measured on the way."""

    def __init__(self, work: Path, out: Path, size: Size, device: str, *, sheet: Path) -> None:
        self.work, self.out, self.size, self.device, self.sheet = work, out, size, device, sheet
        work.mkdir(parents=True, exist_ok=True)
        self._log = work / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self._log.read_text()) if self._log.is_file() else {}

    def say(self, line: str) -> None:
        """Tell how far it is."""
        print(line, flush=True)

    def stage(self, name: str, make: Callable[[], None]) -> None:
        """Run a stage unless it is done, and keep its time."""
        if name in self.seconds:
            return
        began = time.monotonic()
        make()
        self.seconds[name] = round(time.monotonic() - began, 1)
        self._log.write_text(json.dumps(self.seconds, indent=1))

    def plan(self, steps: int, lr: float, **more: Any) -> Plan:
        """A plan whose warm-up fits even the shortest run."""
        return Plan(steps=steps, lr=lr, warmup=min(60, steps), **more)

    # -- the generator ------------------------------------------------------------------------------------------

    def vae(self) -> None:
        """Train the autoencoder on scenes, a fifth of them with random ornaments."""
        pictures, _ = drawn(self.work, "vae", min(7_000, self.size.pictures), seed=11, ornaments=0.2)
        model = autoencoder.train(
            pictures,
            plan=self.plan(self.size.vae, 2e-3, weight_decay=0.0, seed=1),
            folder=self.work,
            batch=min(16, self.size.batch),
            device=self.device,
            say=self.say,
        )
        model.save_pretrained(self.work / "vae")

    def reading(self) -> None:
        """Train the tokenizer, and the text encoder to tell a scene's record from a caption."""
        _, rows = drawn(self.work, "scenes", self.size.pictures, seed=21)
        _, judged = drawn(self.work, "judged", self.size.judged, seed=31, costume=0.14)
        captions = [c for row in rows[:6_000] + judged[:6_000] for c in row["captions"]]  # type: ignore[attr-defined]
        tokenizer = text.make_tokenizer(captions, self.work / "tokenizer")
        encoder = text.make_text_encoder(tokenizer)
        ids = text.tokens(tokenizer, rows, seed=5)
        text.teach_reading(
            encoder,
            ids,
            rows,
            plan=self.plan(self.size.reading, 1.5e-3, seed=2),
            folder=self.work,
            batch=128,
            device=self.device,
            say=self.say,
        )
        encoder.save_pretrained(self.work / "reader")

    def latents(self) -> None:
        """Encode the scenes, and fix the scale that gives the latents unit deviation."""
        vae = AutoencoderKL.from_pretrained(self.work / "vae").to(self.device, memory_format=torch.channels_last)
        pictures, _ = drawn(self.work, "scenes", self.size.pictures, seed=21)
        z = autoencoder.encode(vae, pictures, device=self.device)
        scale = float(1 / z.std())
        vae.register_to_config(scaling_factor=scale)
        vae.save_pretrained(self.work / "vae")
        np.save(self.work / "latents.npy", (z * scale).astype(np.float32))

    def unet(self) -> None:
        """Train U-Net and text encoder on the latents."""
        _, rows = drawn(self.work, "scenes", self.size.pictures, seed=21)
        tokenizer = CLIPTokenizer.from_pretrained(self.work / "tokenizer")
        encoder = CLIPTextModel.from_pretrained(self.work / "reader")
        ids = text.tokens(tokenizer, rows, seed=6, strange=0.08)
        unet = denoiser.train(
            np.load(self.work / "latents.npy"),
            ids,
            encoder,
            plan=self.plan(self.size.unet, 1.2e-3, ema=0.999, seed=3),
            folder=self.work,
            batch=self.size.batch,
            device=self.device,
            say=self.say,
        )
        unet.save_pretrained(self.work / "unet")
        encoder.save_pretrained(self.work / "text_encoder")

    def decoder(self) -> None:
        """Sharpen the decoder; the latents stay."""
        vae = AutoencoderKL.from_pretrained(self.work / "vae").to(self.device, memory_format=torch.channels_last)
        pictures, _ = drawn(
            self.work, "ornate", min(6_000, self.size.pictures), seed=41, ornaments=0.15, patchwork=0.55
        )
        model = autoencoder.sharpen(
            vae,
            pictures,
            plan=self.plan(self.size.decoder, 1e-3, weight_decay=0.0, seed=4),
            folder=self.work,
            batch=8,
            device=self.device,
            say=self.say,
        )
        model.save_pretrained(self.work / "vae_sharp")

    def base(self) -> None:
        """Write the generator as a diffusers folder, fp16."""
        part = {
            "vae": AutoencoderKL.from_pretrained(self.work / "vae_sharp"),
            "unet": UNet2DConditionModel.from_pretrained(self.work / "unet"),
            "text_encoder": CLIPTextModel.from_pretrained(self.work / "text_encoder"),
            "tokenizer": CLIPTokenizer.from_pretrained(self.work / "tokenizer"),
        }
        scheduler = DDIMScheduler(**denoiser.SCHEDULE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
        pipe = StableDiffusionPipeline(
            **part, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        ).to(torch.float16)
        pipe.save_pretrained(self.out / "base", safe_serialization=True)
        for name in ("vocab.json", "merges.txt"):
            (self.out / "base" / "tokenizer" / name).write_bytes((self.work / "tokenizer" / name).read_bytes())

    # -- the judges ---------------------------------------------------------------------------------------------

    def clip(self) -> None:
        """Train and write the CLIP that scores."""
        pictures, rows = drawn(self.work, "judged", self.size.judged, seed=31, costume=0.14)
        tokenizer = CLIPTokenizer.from_pretrained(self.work / "tokenizer")
        model = judges.train_clip(
            pictures,
            text.tokens(tokenizer, rows, seed=7),
            tokenizer,
            plan=self.plan(self.size.judge, 1e-3, weight_decay=0.05, seed=8),
            folder=self.work,
            batch=min(128, len(pictures)),
            device=self.device,
            say=self.say,
        )
        model.half().save_pretrained(self.out / "clip")
        tokenizer.save_pretrained(self.out / "clip")

    def blip(self) -> None:
        """Train and write the BLIP that captions."""
        pictures, rows = drawn(self.work, "judged", self.size.judged, seed=31, costume=0.14)
        captions = [describe(_scene(row["scene"])) for row in rows]
        model, tokenizer = judges.train_blip(
            pictures,
            captions,
            folder=self.work,
            batch=min(64, len(pictures)),
            plan=self.plan(self.size.judge, 1.5e-3, seed=9),
            device=self.device,
            say=self.say,
        )
        model.half().save_pretrained(self.out / "blip")
        tokenizer.save_pretrained(self.out / "blip")

    def oracle(self) -> None:
        """Train and write the oracle."""
        pictures, rows = drawn(self.work, "judged", self.size.judged, seed=31, costume=0.14)
        model = judges.train_oracle(
            pictures,
            rows,
            plan=self.plan(self.size.judge, 2e-3, seed=10),
            folder=self.work,
            batch=min(64, len(pictures)),
            device=self.device,
            say=self.say,
        )
        (self.out / "oracle").mkdir(parents=True, exist_ok=True)
        state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
        save_file({k: v.contiguous() for k, v in state.items()}, self.out / "oracle" / "model.safetensors")
        (self.out / "oracle" / "answers.json").write_text(oracle.questions())

    def figures(self) -> None:
        """Measure the base and write the model card."""
        for config in self.out.rglob("*.json"):  # where a part lay while it was made is nobody's business
            table = json.loads(config.read_text())
            if isinstance(table, dict) and table.pop("_name_or_path", None) is not None:
                config.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n")
        found = measure(self.out, prompts=self.size.prompts, sheet=self.sheet, device=self.device)
        weights = sorted(p for p in self.out.rglob("*.safetensors"))
        card = {
            "made_by": "python -m vez.demo.make_base",
            "size": vars(self.size),
            "seconds": self.seconds,
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} threads, {self.device}",
            "torch": torch.__version__,
            "figures": found,
            "notes": notes.read_text() if (notes := self.work / "notes.txt").is_file() else "",
            "weights": {
                str(p.relative_to(self.out)): {
                    "bytes": p.stat().st_size,
                    "sha256": hashlib.sha256(p.read_bytes()).hexdigest(),
                }
                for p in weights
            },
        }
        (self.out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
        self.sheet.with_suffix(".md").write_text(page(card, sheet=self.sheet.name))
        parts = sorted(p for folder in FOLDERS for p in (self.out / folder).rglob("*") if p.is_file())
        sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(self.out).as_posix()}" for p in parts]
        (self.out / "SHA256SUMS").write_text("\n".join(sums) + "\n")


FOLDERS = ("base", "clip", "blip", "oracle")
STAGES = ("vae", "reading", "latents", "unet", "decoder", "base", "oracle", "clip", "blip", "figures")


def _scene(record: Any) -> Scene:
    return Scene(**{**record, "person": Person(**record["person"])})


def main() -> None:
    """Parse the command line and run the stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/base"), help="checkpoints, drawings, latents")
    parser.add_argument("--out", type=Path, default=HERE, help="where base/, clip/, blip/, oracle/ and card.json go")
    parser.add_argument("--sheet", type=Path, default=Path("docs/tiny.png"), help="where 64 unselected samples go")
    parser.add_argument("--size", choices=list(SIZES), default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=STAGES, help="just these stages")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    maker = Maker(options.work, options.out, SIZES[options.size], device, sheet=options.sheet)
    for name in STAGES:
        if name in options.only:
            maker.stage(name, getattr(maker, name))


if __name__ == "__main__":
    main()
