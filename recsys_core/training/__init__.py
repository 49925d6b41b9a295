"""Training: the loop, batches, negative sampling, checkpoints, cold items and retraining."""
