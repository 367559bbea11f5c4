"""Figures, and the page of a map."""
