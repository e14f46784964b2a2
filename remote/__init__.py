"""Hosts, commands, files, environments and sessions.  Nothing of machine learning, nothing of screens."""
