"""Turns pixels into predictions, and data into weights."""
