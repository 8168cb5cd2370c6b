"""A load generator for HTTP: closed loop or open, one process."""
