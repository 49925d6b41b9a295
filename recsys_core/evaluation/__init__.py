"""Evaluation: full-catalogue ranks, metrics, slices, statistics, baselines and the gate."""
