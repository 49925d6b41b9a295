"""Pruning, quantization, export and the parity check."""
