"""What a start brings along: training and drawing load torch, safetensors and tokenizers, no other library of models.

Counted, not timed: `sys.modules` of a clean process that loads `tiny`, makes a step and draws a picture.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = {
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "huggingface_hub",  # a base here is not looked for elsewhere
    "scipy",
    "sklearn",
    "jinja2",
    "sympy",
    "torch._dynamo",
    "torch._inductor",
}
CODE = """
import json, sys, torch
import vez.train, vez.sample
from vez import base as bases
from vez.bench.step import random_batch, trainer
from vez.bench.work import Workload
from vez.config import Sampling
from vez.draw import denoise, encode_text
from vez.solver import moves, noise

base = bases.load("tiny")
work = Workload(base="tiny", size=64, batch=1, ranks=(4,))
with bases.computing(base, torch.float32, pixels=64):
    trainer(base, work.specs)(random_batch(base, work))
latents = noise([0], 8, 8)
text = encode_text(base, ["a girl"])
walk = moves(base.schedule.alphas_cumprod.double().numpy(), 2, solver="dpm++2m")
with torch.no_grad():
    drawn = denoise(base, latents, text=text, negative=encode_text(base, [""]), walk=walk, cfg=3.0)
bases.decode_latents(base, drawn)
print(json.dumps(sorted(sys.modules)))
"""


def test_training_and_drawing_load_no_other_library_of_models() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr[-2000:]
    loaded = set(json.loads(result.stdout.splitlines()[-1]))
    assert "torch" in loaded and "tokenizers" in loaded
    assert not loaded & ABSENT
