"""From a scheduler's step to a picture of what it will become."""
