"""Soft labels: their format on disk, their generation and their losses."""
