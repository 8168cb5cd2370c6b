"""The command's parts, by what they are about."""
