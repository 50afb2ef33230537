"""Weights and configurations on this machine, and how they come here."""
