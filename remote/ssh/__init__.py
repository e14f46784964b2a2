"""Machines behind SSH: how to log in, who they prove to be, and one connection that commands run over."""
