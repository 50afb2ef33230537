"""How well scores agree with people, with intervals."""
