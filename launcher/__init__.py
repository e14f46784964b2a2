"""The command line: composes `remote` and `jobs`, and owns the screen."""

__version__ = "0.1.0"
