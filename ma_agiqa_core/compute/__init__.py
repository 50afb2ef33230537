"""Where to compute, how many at a time, and how far it has come."""
