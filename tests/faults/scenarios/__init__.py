"""One module for each part of the system that is broken."""
