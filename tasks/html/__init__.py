"""HTML pages and SVG plots that need no network, script or server."""
