"""A collection in a browser and over HTTP."""
