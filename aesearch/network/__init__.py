"""Autoencoders: what they are made of, how they are trained."""
