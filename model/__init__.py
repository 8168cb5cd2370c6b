"""Turns a picture file into a prediction."""
