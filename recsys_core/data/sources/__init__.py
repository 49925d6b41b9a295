"""Source files: where they are, how each format is read, and what users configure of them."""
