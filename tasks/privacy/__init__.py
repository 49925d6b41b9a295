"""Forgetting a user, and the key for user ids."""
