"""Figures of BENCHMARKS.md, one module each: `python -m benchmarks.NAME` from the repository's root, extra `bench`."""
