"""One arm of a comparison, in a process of its own: `python bench/arms.py NAME '<workload as JSON>'`.

A line on stdin asks for something, a line of JSON answers: "step 3" makes three steps and tells seconds, CPU seconds,
losses, gradient norms and the peak of memory so far; "count" makes one more and counts it. `vez` is the program as it
trains; `reference` is bench/reference.py; the rungs of the ladder lead from the loop of diffusers' examples to vez.
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from time import perf_counter, process_time
from typing import Any

import torch
from torch.nn import functional as F

from vez.base import Base, computing, computing_in
from vez.base.lean import lean
from vez.bench.counts import counted, settle
from vez.bench.step import DTYPES, RATES, peak_bytes, random_batch, trainer
from vez.bench.weights import random_base
from vez.bench.work import Workload, workload
from vez.denoise import Batch
from vez.device import choose
from vez.lora import attach
from vez.nets.kernels.regions import uncompiled
from vez.optim import AdamW

BATCHES = 4  # different ones, in turn
Step = Callable[[Batch], tuple[Sequence[float], Sequence[float]]]
Maker = Callable[[Base, Workload, ExitStack], Step]


def vez(base: Base, work: Workload, stack: ExitStack) -> Step:
    """vez as it trains."""
    stack.enter_context(computing(base, DTYPES[work.dtype], pixels=work.size, checkpointing=work.checkpointing))
    return trainer(base, work.specs)


def compiled(base: Base, work: Workload, stack: ExitStack) -> Step:
    """vez with `compile = true`."""
    stack.enter_context(computing(base, DTYPES[work.dtype], pixels=work.size, compile=True))
    return trainer(base, work.specs)


def selective(base: Base, work: Workload, stack: ExitStack) -> Step:
    """vez with `checkpointing = "selective"`."""
    return vez(base, replace(work, checkpointing="selective"), stack)


def loop(**setting: Any) -> Maker:
    """The loop of diffusers and peft in this setting."""

    def maker(base: Base, work: Workload, stack: ExitStack) -> Step:
        from reference import Setting, reference

        step = reference(base, work.ranks[0], Setting(**setting), pixels=work.size)

        def run(batch: Batch) -> tuple[list[float], list[float]]:
            loss, norm = step(batch)
            return [loss], [norm]

        return run

    return maker


def adapted(base: Base, work: Workload, stack: ExitStack) -> Step:
    """vez's LoRA layers and AdamW on diffusers' networks, which compute in the base's dtype without autocast."""
    from networks import text_of, unet_of

    unet, text_encoder = unet_of(base).to(memory_format=torch.channels_last), text_of(base)
    theirs = replace(base, unet=unet, text_encoders=(text_encoder,))
    lora = attach(theirs, work.specs, seed=0)
    optimizer = AdamW(lora)
    alphas = base.schedule.alphas_cumprod.to(base.device)

    def step(batch: Batch) -> tuple[list[float], list[float]]:
        alpha = alphas[batch.timesteps].view(-1, 1, 1, 1)
        noisy = (alpha.sqrt() * batch.latents + (1 - alpha).sqrt() * batch.noise).to(base.dtype)
        text = text_encoder(input_ids=batch.tokens).last_hidden_state
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        prediction = unet(noisy, batch.timesteps, encoder_hidden_states=text, return_dict=False)[0]
        loss = F.mse_loss(prediction.float(), batch.noise)
        loss.backward()
        norms = optimizer.norms()
        optimizer.step([RATES], norms)
        return [float(loss.detach())], norms.tolist()

    return step


REFERENCES: dict[str, Maker] = {
    "reference, SDPA": loop(),
    "reference, plain attention": loop(fused_attention=False),
    "reference, SDPA, channels last": loop(channels_last=True),
    "reference, plain attention, channels last": loop(fused_attention=False, channels_last=True),
}
COMPILED: dict[str, Maker] = {
    "reference, SDPA, compiled": loop(compiled=True),
    "reference, plain attention, compiled": loop(fused_attention=False, compiled=True),
}


def fused_attention(base: Base, work: Workload, stack: ExitStack) -> Step:
    """vez's own networks, which keep less, with torch's fused attention everywhere."""
    stack.enter_context(computing_in(base, DTYPES[work.dtype]))
    stack.enter_context(lean(base))
    return trainer(base, work.specs)


SELECTIVE = 'vez, checkpointing = "selective"'
INT8 = 'vez, quantize = "int8"'
MANY = "vez, four variants in one pass"
RUNGS: dict[str, Maker] = {
    "the examples' loop of diffusers and peft": loop(encodes=True, fused_adam=False),
    "+ latents encoded beforehand": loop(fused_adam=False),
    "+ fused AdamW over flat buffers": loop(flat=True),
    "+ channels last": loop(flat=True, channels_last=True),
    "+ LoRA layers of one node, no autocast": adapted,
    "+ vez's own networks": fused_attention,
    "+ attention by shape: vez as it is": vez,
    "+ gates compiled (compile = true)": compiled,
    MANY: vez,
}
GPU_RUNGS: frozenset[str] = frozenset()
ARMS: dict[str, Maker] = {**REFERENCES, **COMPILED, SELECTIVE: selective, INT8: vez, "vez": vez, **RUNGS}


def main(name: str, row: str) -> int:
    """Build the arm, then answer."""
    work = workload(json.loads(row))
    device = choose(work.device)
    kept = "int8" if name == INT8 else work.quantize
    base = random_base(work.base, device=device, dtype=DTYPES[work.dtype], quantize=kept)
    batches = [random_batch(base, work, seed=i) for i in range(BATCHES)]
    done = 0
    with ExitStack() as stack:
        step = ARMS[name](base, work, stack)
        for line in sys.stdin:
            asked, _, number = line.strip().partition(" ")
            if asked == "count":
                with uncompiled():  # operators are counted as PyTorch dispatches them
                    once = counted(partial(step, batches[done % BATCHES]))
                answer: dict[str, Any] = {"operators": once.operators, "flops": once.flops, "bytes": once.bytes}
                done += 1
            else:
                seen: list[tuple[Sequence[float], Sequence[float]]] = []
                settle(device)
                began, used = perf_counter(), process_time()
                for _ in range(int(number)):
                    seen.append(step(batches[done % BATCHES]))
                    done += 1
                settle(device)
                answer = {"seconds": perf_counter() - began, "cpu": process_time() - used, "peak": peak_bytes(device)}
                answer |= {"loss": [losses[0] for losses, _ in seen], "norm": [norms[0] for _, norms in seen]}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
