"""Moving rows through the disk: a partitioned spool, and reading ahead in a thread."""
