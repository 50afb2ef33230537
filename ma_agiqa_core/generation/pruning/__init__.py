"""Dropping candidates in the middle of the loop."""
