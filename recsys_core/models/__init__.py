"""The sequential recommender as teacher, student and ensemble, and the content of items."""
