"""Turns micro-batches of messages into replies."""
