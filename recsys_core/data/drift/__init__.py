"""Drift: how a new day differs from the days before it."""
