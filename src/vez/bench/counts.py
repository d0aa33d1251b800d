"""What a piece of work asks of a machine, counted; and what the machine can do, measured."""

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten


def _linear(x: torch.Tensor, *others: object, out_val: torch.Tensor) -> int:
    """FLOP of oneDNN's linear layers: every number that goes in meets every one that comes out of its row."""
    return 2 * x.numel() * out_val.shape[-1]


def _convolution(x: torch.Tensor, *others: object, out_val: torch.Tensor) -> int:
    """FLOP of oneDNN's convolutions; the weight stands last of what has four dimensions."""
    weight = next(one for one in reversed(others) if isinstance(one, torch.Tensor) and one.dim() == 4)
    return 2 * out_val.numel() * (weight.numel() // weight.shape[0])


# What torch's own table lacks: products added in place, the CPU's fused attention, oneDNN's layers.
_FORMULAS: dict[Any, Any] = flop_registry | {
    _aten.baddbmm_: flop_registry[_aten.baddbmm],
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[_aten._scaled_dot_product_flash_attention],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}
_ONEDNN = {"_linear_pointwise": _linear, "_convolution_pointwise": _convolution}
_FORMULAS |= {
    getattr(torch.ops.mkldnn, name): formula for name, formula in _ONEDNN.items() if hasattr(torch.ops.mkldnn, name)
}
_SIDES = {"cpu": 2048, "cuda": 8192, "mps": 4096}
_RATE_SECONDS = 0.5


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Operators, floating-point operations and bytes allocated of what runs inside; views are not counted.

    A multiplication and an addition are two. An operator is about one launch on a GPU. ``bytes``: of the tensors that
    operators return and that share no memory with what they were given; what a library needs inside an operator is not
    seen. None of the three depends on threads, on the machine's load or on the allocator.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = 0
        self.flops = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count it; one made of others, which in inference mode comes whole, is taken apart."""
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                return func.decompose(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=result))
        given = {storage._cdata for storage in _storages((args, kwargs))}
        returned = {storage._cdata: storage.nbytes() for storage in _storages(result)}
        self.bytes += sum(size for address, size in returned.items() if address not in given)
        writes = any(value.alias_info is not None and value.alias_info.is_write for value in func._schema.returns)
        self.operators += writes or not returned or not returned.keys() <= given
        return result


def _storages(values: Any) -> Iterator[Any]:
    """The memory of every tensor in arguments or results."""
    tensors = (value for value in tree_leaves(values) if isinstance(value, torch.Tensor))
    return (tensor.untyped_storage() for tensor in tensors if not tensor.is_mkldnn)  # a library's own has none


def counted(work: Callable[[], object]) -> Counted:
    """Do the work once and count it."""
    mode = Counted()
    with mode:
        work()
    return mode


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a large square matrix product in ``dtype``, the best of half a second."""
    side = _SIDES.get(device.type, 2048)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    out = torch.mm(a, b)
    settle(device)
    best, until = float("inf"), perf_counter() + _RATE_SECONDS
    while perf_counter() < until:
        began = perf_counter()
        torch.mm(a, b, out=out)
        settle(device)
        best = min(best, perf_counter() - began)
    return 2 * side**3 / best


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
