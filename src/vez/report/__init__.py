"""The report: one self-contained page that names the LoRA to use, read from the artifacts of a study and nothing else.

evidence (what lies on disk) → verdict (what may be said) → view (what is shown) → build (the page); charts, motif and
pictures draw. None of them needs torch.
"""
