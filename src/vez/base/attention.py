"""Attention in plain products, as networks are given it (`vez.base.model.plain_attention`)."""

from vez.nets.kernels.scores import plain

__all__ = ["plain"]
