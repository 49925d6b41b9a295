"""Data: from source files to the lake, to histories with a split, and soft labels on disk."""
