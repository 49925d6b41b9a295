"""A synthetic world whose true next-item distribution is known."""
