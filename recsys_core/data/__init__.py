"""From raw event files to histories and splits."""
