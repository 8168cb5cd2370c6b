"""The front door: settings, the mlaas command, the one-command start."""
