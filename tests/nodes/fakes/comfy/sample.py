"""The fake of sampling: it can be imported, and no more. The tests of sampling run in the real ComfyUI."""
