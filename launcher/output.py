"""The one place that writes to the terminal: results, events, errors; as text or as one JSON envelope."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from launcher.progress import LogPiece, Note, Progress, RunNews, Transfer
from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.status import Status


# What is over within a second or two needs no bar.
WORTH_A_BAR_BYTES = 4 * 1024 * 1024


class Output:
    """Renders for one command.  With `as_json` stdout gets exactly one JSON document, and all else goes to stderr."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._status: Status | None = None
        self._bar: Bar | None = None
        self._at_line_start = True
        self._pending = ""
        # However the command ends: the status line must not stay, with the cursor hidden, below an error.
        if context := click.get_current_context(silent=True):
            context.call_on_close(self.close)

    def show(self, data: Any, render: Callable[[Console], None]) -> None:
        """The command's result: `data` in the envelope, or whatever `render` prints."""
        self.close()
        if self.as_json:
            print(json.dumps({"ok": True, "data": data}, ensure_ascii=True), flush=True)
        else:
            render(self._console(stderr=False))

    def show_text(self, data: Any, lines: Callable[[int | None], Sequence[str]]) -> None:
        """The command's result, as `show`; `lines` for a terminal of that many columns, None for a pipe."""
        self.close()
        if self.as_json:
            self.show(data, lambda console: None)
            return
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        # Not through a console: a thousand lines would take it a second.
        sys.stdout.write("".join(f"{line}\n" for line in lines(width)))
        sys.stdout.flush()

    @contextlib.contextmanager
    def changing_text(self, lines: Callable[[Any, int | None], Sequence[str]]) -> Iterator[Callable[[Any], None]]:
        """What shows `lines` of a value on a terminal, in place of those of the one before; nothing is left of it."""
        if self.as_json or not sys.stdout.isatty():
            yield lambda value: None
            return
        from rich.live import Live
        from rich.text import Text

        console = self._console(stderr=False)
        with contextlib.ExitStack() as stack:
            started: list[Live] = []  # not before there is something to show: not even the cursor is touched

            def show(value: Any) -> None:
                if not started:
                    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
                    started.append(stack.enter_context(live))
                shown = lines(value, console.width)
                cut = shown[: console.height - 1] if len(shown) >= console.height else shown
                started[0].update(Text("\n".join(cut), no_wrap=True, overflow="crop"), refresh=True)

            yield show

    def error(self, code: str, message: str, hint: str, data: Any = None) -> None:
        """The command's failure, and what it found out nevertheless."""
        self.close()
        message, hint = clean(message), clean(hint)
        if self.as_json:
            error = {"code": code, "message": message, "hint": hint}
            found = {} if data is None else {"data": data}
            print(json.dumps({"ok": False, "error": error, **found}, ensure_ascii=True))
        console = self._console(stderr=True)
        # Words stay whole on a terminal; a command to copy is never broken by us.
        console.print(f"error: {message}", style="red", soft_wrap=not console.is_terminal)
        if hint:
            console.print(f"hint: {hint}", soft_wrap=True)

    def observe(self, progress: Progress) -> None:
        """What goes on meanwhile.  A line of a log is shown as it is, cleaned; events move the status line."""
        match progress:
            case Note(text):
                self._line(f"launch: {clean(text)}", style="dim")
            case LogPiece(text):
                self._log(clean(text))
            case RunNews(kind, fields):
                self._news(kind, fields)
            case Transfer(done, total, files):
                self._show_transfer(done, total, files)

    def observe_notes(self, progress: Progress) -> None:
        """As `observe`, for commands whose result is all that was asked for."""
        if isinstance(progress, Note):
            self.observe(progress)

    def close(self) -> None:
        """End the status line and a line that was left open."""
        self._end_status()
        if not self._at_line_start:
            self._log("\n")

    def _console(self, *, stderr: bool) -> Console:
        from rich.console import Console

        # Markup, emoji and highlighting are off: text from a host must not be read as instructions.
        return Console(stderr=stderr, markup=False, emoji=False, highlight=False)

    @property
    def _progress_console(self) -> Console:
        if self._bar is not None:
            return self._bar.console
        if self._status is not None:
            return self._status.console
        return self._console(stderr=self.as_json or not sys.stdout.isatty())

    def _line(self, text: str, style: str = "") -> None:
        if not self._at_line_start:
            self._log("\n")
        console = self._progress_console
        console.print(text, style=style, soft_wrap=not console.is_terminal)

    def _log(self, text: str) -> None:
        if not text:
            return
        if self._status is None:
            stream = sys.stderr if self.as_json else sys.stdout
            stream.write(text)
            stream.flush()
            self._at_line_start = text.endswith("\n")
            return
        # Beside a live status only whole lines can be printed; the rest waits.
        self._pending += text
        *lines, self._pending = self._pending.split("\n")
        for line in lines:
            self._status.console.print(line, soft_wrap=True)

    def _news(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "state":
            reason = f": {fields['reason']}" if fields.get("reason") else ""
            self._line(clean(f"launch: {fields.get('state')}{reason}"), style="bold")
        if kind == "step" and sys.stdout.isatty() and not self.as_json:
            self._show_status(clean(_step(fields)))
        elif kind != "step":
            self._end_status()

    def _show_transfer(self, done: int, total: int, files: int) -> None:
        """A bar with rate and remaining time, on a terminal only; nothing where a transfer is over at once."""
        if self._bar is None:
            if done >= total or total < WORTH_A_BAR_BYTES or not sys.stderr.isatty():
                return
            from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Bar

            columns = ("{task.description}", BarColumn(None), DownloadColumn(), TransferSpeedColumn(),
                       TimeRemainingColumn(compact=True))  # fmt: skip
            self._bar = Bar(*columns, console=self._console(stderr=True), transient=True, expand=True)
            self._bar.add_task(f"{files:,} file{'s' * (files != 1)}", total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def _end_status(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._status is not None:
            self._status.stop()
            self._status = None
            rest, self._pending = self._pending, ""
            self._log(rest)

    def _show_status(self, text: str) -> None:
        from rich.status import Status
        from rich.text import Text

        if self._status is None:
            self._status = Status(Text(), spinner="line", console=self._console(stderr=False))
            self._status.start()
        self._status.update(Text(text))  # a str would be read as markup


def _step(fields: dict[str, Any]) -> str:
    parts = [f"step {fields.get('step')}/{fields.get('steps')}"]
    for key, text in (
        ("loss", "loss {:.3f}"),
        ("learning_rate", "lr {:.1e}"),
        ("rows_per_s", "{:.0f} rows/s"),
        ("eta_s", "ETA {:.0f} s"),
    ):
        # No number of a run has a thousand digits; one that has is too large for a format.
        if isinstance(value := fields.get(key), int | float) and abs(value) < 1e300:
            parts.append(text.format(value))
    return " · ".join(parts)
