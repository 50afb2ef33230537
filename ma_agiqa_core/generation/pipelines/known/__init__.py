"""The table of pipeline families, one file for each kind of network.

Read from the `__call__` of diffusers 0.35 to 0.42 and checked picture by picture in tests/generation. A pipeline is
known by its exact class, never by a base class: one line added in a subclass's loop can make other pictures.
"""
