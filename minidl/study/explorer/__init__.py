"""One step as a page to walk through in a browser."""
