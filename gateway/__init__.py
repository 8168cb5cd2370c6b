"""Turns HTTP into a message and a reply into HTTP."""
