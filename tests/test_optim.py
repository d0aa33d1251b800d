"""AdamW and clipping over the flat buffers against torch's own."""

import pytest
import torch

from vez.base import Base
from vez.lora import LoraSpec, attach
from vez.optim import AdamW, Rates


@pytest.mark.parametrize("clip", [0.0, 0.5, 1e9])
def test_steps_are_those_of_torch(random_base: Base, clip: float) -> None:
    lora = attach(random_base, [LoraSpec(2, 2.0), LoraSpec(5, 5.0)], seed=0)
    lora.detach()
    rates = [Rates(1e-3, 5e-4, weight_decay=0.01, clip=clip), Rates(2e-3, 0.0, weight_decay=0.3, clip=clip)]
    theirs, groups, optimizers = [], [], []
    for v, rate in enumerate(rates):
        parts = {n: lora.params.detach()[v, lora.columns[n]].clone().requires_grad_() for n in ("unet", "text")}
        theirs.append(parts)
        groups = [{"params": [parts["unet"]], "lr": rate.unet}, {"params": [parts["text"]], "lr": rate.text}]
        optimizers.append(torch.optim.AdamW(groups, weight_decay=rate.weight_decay))
    ours = AdamW(lora)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        lora.grads.copy_(torch.randn(lora.grads.shape, generator=generator))
        norms = []
        for v, parts in enumerate(theirs):
            for network in ("unet", "text"):
                parts[network].grad = lora.grads[v, lora.columns[network]].clone()  # type: ignore[index]
            norm = torch.nn.utils.clip_grad_norm_(parts.values(), clip or 1e30)
            norms.append(norm)
            optimizers[v].step()
        assert torch.allclose(ours.norms(), torch.stack(norms), rtol=1e-6)
        ours.step(rates, ours.norms())
        assert not lora.grads.any()
    for v, parts in enumerate(theirs):
        for network, value in parts.items():
            mine = lora.params.detach()[v, lora.columns[network]]  # type: ignore[index]
            torch.testing.assert_close(mine, value.detach(), rtol=1e-6, atol=1e-8)
