"""The engine: keys and skipping of stages, the facts of a night, stage outputs, progress."""
