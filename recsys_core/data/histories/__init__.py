"""User histories in buckets: building and reading them, splits, filters, targets."""
