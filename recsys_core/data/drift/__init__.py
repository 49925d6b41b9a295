"""How a new day compares with the days before it."""
