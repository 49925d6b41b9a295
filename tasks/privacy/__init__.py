"""Erasure of a user from a workspace, and the key for hashing user ids."""
