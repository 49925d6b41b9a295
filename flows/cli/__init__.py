"""The command line `recdistill`."""
