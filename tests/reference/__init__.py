"""Slow, plain twins of the kernels: ordinary integers and lists, no code of the project."""
