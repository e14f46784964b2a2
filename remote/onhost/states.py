"""The words for how a run stands; the only module here that the laptop's side imports besides `frames`."""

FINAL = ("succeeded", "failed", "stopped")
"""States that a result file states."""
