"""What an autograd graph holds."""

from torch import Tensor


def kept_by(root: object, weights: set[int]) -> int:
    """Bytes of the tensors that a graph holds as they are; what is kept as a recipe has none of its own."""
    found: dict[int, int] = {}
    todo, seen = [root], set()
    while todo:
        node = todo.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        for name in dir(node):
            if name.startswith("_raw_saved"):
                raw = getattr(node, name)
                for one in raw if isinstance(raw, (tuple, list)) else [raw]:
                    data = getattr(one, "data", None)
                    if isinstance(data, Tensor) and data.untyped_storage().data_ptr() not in weights:
                        found[data.untyped_storage().data_ptr()] = data.untyped_storage().nbytes()
        todo += [child for child, _ in node.next_functions]  # type: ignore[attr-defined]
    return sum(found.values())
