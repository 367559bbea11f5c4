"""A collection's answers as pages, pictures and tables."""
