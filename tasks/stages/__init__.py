"""The stages of a night, one a file, and nothing else."""
