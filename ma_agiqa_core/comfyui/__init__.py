"""ComfyUI's data (latents, conditioning, segments of a sampling), without importing ComfyUI."""
