"""A typed client for the HTTP interface."""
