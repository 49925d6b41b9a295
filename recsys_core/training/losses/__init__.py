"""Losses of the next item: one file for each loss, and `selection` for the setting that picks one.

`chunked`, `sampled_candidates` and `negatives` compute losses and their gradients a few positions
at a time.
"""
