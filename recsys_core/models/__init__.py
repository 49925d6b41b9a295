"""The sequential recommender, as teacher and as student."""
