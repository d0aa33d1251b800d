"""The base: the frozen model that is trained on; `vez.nets` holds its weights.

A base is "tiny" (the one in the package), a folder in diffusers' layout, a hub id, or a single LDM file. What differs
between families stands in `vez.family`; what differs between two bases of one family is read from their own files.
"""

from vez.base.compute import PLAIN_ATTENTION_PIXELS, computing
from vez.base.load import load
from vez.base.model import Base, Schedule, computing_in, plain_attention
from vez.base.pictures import cached_moments, decode_latents, encode_images
from vez.base.source import tiny_path
from vez.base.words import Conditioning, condition, encode_text, predict, tokenize

__all__ = [
    "PLAIN_ATTENTION_PIXELS",
    "Base",
    "Conditioning",
    "Schedule",
    "cached_moments",
    "computing",
    "computing_in",
    "condition",
    "decode_latents",
    "encode_images",
    "encode_text",
    "load",
    "plain_attention",
    "predict",
    "tiny_path",
    "tokenize",
]
