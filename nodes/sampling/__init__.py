"""Best-of-N sampling in ComfyUI."""
