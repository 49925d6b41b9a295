"""Pseudonyms, the denylist of erased users, and erasure."""
