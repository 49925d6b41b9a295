"""Full-catalogue metrics, slices, statistics, baselines and the gate."""
