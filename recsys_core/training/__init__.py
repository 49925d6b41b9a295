"""One training loop and its losses, batches and checkpoints."""
