"""Judges that people publish: one module each, as the figure of its paper, on transformers' classes where they fit."""
