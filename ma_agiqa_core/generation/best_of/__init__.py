"""Best of N: requests, batches, processes, one at a time."""
