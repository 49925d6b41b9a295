"""From rows of source files to rows of the lake: check, clean, deduplicate, merge."""
