"""What runs the judges over shards: this machine, Ray, Daft."""
