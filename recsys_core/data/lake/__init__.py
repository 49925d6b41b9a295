"""The lake: Delta tables, the log of ingested files, its status and its retention."""
