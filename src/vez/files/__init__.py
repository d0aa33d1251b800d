"""LoRA files as people have them: read any layout, write kohya's or diffusers', resize, add, merge, extract, show."""
