"""Tasks: the stages of a night, the engine that runs them, and the rooms that serve them."""
