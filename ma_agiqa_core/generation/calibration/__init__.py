"""Where pruning pays: measured, replayed, reported."""
