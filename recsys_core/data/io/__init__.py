"""A spool of rows on the disk by key, and prefetching in a thread."""
