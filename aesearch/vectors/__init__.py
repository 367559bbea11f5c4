"""Vectors and what lies between them."""
