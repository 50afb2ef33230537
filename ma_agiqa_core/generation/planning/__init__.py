"""How to prune, planned from the scores of candidates that were all finished, and what may be promised of it."""
