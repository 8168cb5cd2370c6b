"""Turns picture files into predictions."""
