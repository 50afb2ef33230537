"""Scorers in ComfyUI: loading, memory, cache."""
