"""The networks of Stable Diffusion, written for vez: they import torch and nothing else.

Paths of modules, names of weights and the arithmetic are those of the published files (diffusers' and transformers'
layout), so a LoRA finds its modules and a file its places. Each network is built from a configuration that is checked
first, since it came with a file from somewhere.
"""
