"""HTML pages and plots that need no network, no script and no server."""
