"""What runs: the nightly flow, its configuration and the command line."""
