"""Scorers of unfinished pictures: what calibration keeps to teach them, and how they are used."""
