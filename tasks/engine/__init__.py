"""What runs stages: keys, manifests, the night, progress."""
