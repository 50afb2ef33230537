"""A scorer of somebody's own taste, learned from picks."""
