"""Turns data into weights, reports and model cards. Serving never imports it."""
