"""The front door: settings, the mlaas command, the one-command start."""

__version__ = "0.1.0"
