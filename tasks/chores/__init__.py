"""What a night does besides stages: synthetic data, waiting for sources, retention, summary."""
