"""stub"""

from __future__ import annotations

from typing import Any, Dict, List

from .run import Run


def start(run: Run, targets: List[Dict[str, Any]]) -> None:
    pass
