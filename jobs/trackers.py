"""Trackers of experiments: what a training tells goes to TensorBoard and Weights & Biases as well.

Owns their names and places, as transformers' `report_to` has them.  None of them ever fails a run: one that does not
work is left out, and said.
"""

from __future__ import annotations

import importlib
import netrc
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jobs.log_line import say

TILE = Path("/root/tf-logs")
"""What the console of AutoDL shows when its TensorBoard is opened."""

PROJECT = "launch"
Log = Callable[[int, Mapping[str, float]], None]


class Trackers:
    """Those of `names` that work here, for the run `run_id`, whose own files go below `folder`."""

    def __init__(
        self, names: tuple[str, ...] = (), run_id: str = "", folder: Path = Path(), config: Any = None
    ) -> None:
        self._open: dict[str, tuple[Log, Callable[[], Any]]] = {}
        for name in names:
            self._guarded(name, partial(self._start, name, run_id, folder, config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures by name, as `train/loss`, after `step` steps."""
        for name, (write, _) in list(self._open.items()):
            self._guarded(name, partial(write, step, values))

    def close(self) -> None:
        """Have everything written."""
        for name, (_, close) in list(self._open.items()):
            self._guarded(name, close)
        self._open = {}

    def _start(self, name: str, *told: Any) -> None:
        self._open[name] = OPEN[name](*told)

    def _guarded(self, name: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # whatever a tracker fails with, the training is worth more
            self._open.pop(name, None)
            words = " ".join(str(error).split())[:200]
            say(f"warning: {name} is left out: {type(error).__name__}: {words}")


def _tensorboard(run_id: str, folder: Path, config: Any) -> tuple[Log, Callable[[], Any]]:
    from torch.utils.tensorboard import SummaryWriter

    asked = os.environ.get("TENSORBOARD_LOGGING_DIR")
    parent = Path(asked) if asked else TILE if TILE.is_dir() and os.access(TILE, os.W_OK) else folder / "tensorboard"
    writer = SummaryWriter(str(parent / run_id))
    writer.add_text("spec", "\n".join(f"    {key}: {value}" for key, value in config.items()))
    say(f"tensorboard: {parent / run_id}")

    def log(step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    return log, writer.close


def _wandb(run_id: str, folder: Path, config: Any) -> tuple[Log, Callable[[], Any]]:
    # By name, as it need not be installed where this is checked.
    wandb = importlib.import_module("wandb")
    mode = os.environ.get("WANDB_MODE") or (None if _wandb_key_is_known() else "offline")
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        id=run_id,
        name=os.environ.get("WANDB_NAME", run_id),
        resume="allow",  # a run that goes on after a break is one run there, too
        dir=str(folder),
        config=config,
        mode=mode,
        settings=wandb.Settings(console="off", silent=True),
    )
    say(f"wandb: {run.url or f'offline; to send it: wandb sync {run.dir}/..'}")
    return lambda step, values: run.log(dict(values), step=step), run.finish


def _wandb_key_is_known() -> bool:
    """Without one, and with nobody at the keyboard, it would not start."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False


OPEN: dict[str, Callable[[str, Path, Any], tuple[Log, Callable[[], Any]]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
