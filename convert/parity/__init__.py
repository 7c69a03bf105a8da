"""Measures that Flax and PyTorch compute the same; `python -m convert.parity` prints the table."""
