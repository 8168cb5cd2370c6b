"""Asks a gateway over HTTP."""
