"""The one place that writes to the terminal: results, events, errors; as text or as one JSON envelope."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from launcher.errors import EXIT_DETACHED
from launcher.progress import Inferring, LogPiece, Note, Progress, RunAge, RunNews, Transfer
from launcher.untrusted import Cleaner, clean
from remote.onhost.states import FINAL

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

    from launcher.live_view import LiveView
    from launcher.price import Price


# What is over within a second or two needs no bar.
WORTH_A_BAR_BYTES = 4 * 1024 * 1024
# Of what an event says: a host may say megabytes.
LINE_CHARACTERS = 2000
# Where no bar can be drawn, a line this often says how far an inference is.
INFERRING_EVERY_S = 30.0


class Output:
    """Renders for one command.  With `as_json` stdout gets exactly one JSON document, and all else goes to stderr.

    `price` is what the machine costs, for the live view of a run that is followed.  With `log_on_stderr` stdout has
    nothing but the result in any case.
    """

    def __init__(self, *, as_json: bool = False, price: Price | None = None, log_on_stderr: bool = False) -> None:
        self.as_json = as_json
        self._log_on_stderr = as_json or log_on_stderr
        self._price = price
        self._view: LiveView | None = None
        self._has_no_view = as_json
        self._bar: Bar | None = None
        self._bar_of: type[Progress] | None = None
        self._told_inferring_at: float | None = None
        self._at_line_start = True
        self._cleaner = Cleaner()
        # However the command ends: nothing of the live view must stay below an error.
        if context := click.get_current_context(silent=True):
            context.call_on_close(self.close)

    def show(self, data: Any, render: Callable[[Console], None]) -> None:
        """The command's result: `data` in the envelope, or whatever `render` prints."""
        self.close()
        if self.as_json:
            print(json.dumps({"ok": True, "data": data}, ensure_ascii=True), flush=True)
        else:
            render(self._console(stderr=False))

    def show_text(self, data: Any, lines: Callable[[int | None], Iterable[str]]) -> None:
        """The command's result, as `show`; `lines` for a terminal of that many columns, None for a pipe."""
        self.close()
        if self.as_json:
            self.show(data, lambda console: None)
            return
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        # Not through a console: a thousand lines would take it a second.
        sys.stdout.writelines(f"{line}\n" for line in lines(width))
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

    def detached(self, message: str, next_step: str) -> NoReturn:
        """End the process after a Ctrl-C that ended nothing else."""
        self.close()
        if self.as_json:
            error = {"code": "interrupted", "message": message, "hint": next_step}
            print(json.dumps({"ok": False, "error": error}), flush=True)
        click.echo(f"\n{message}: {next_step}", err=True)
        raise click.exceptions.Exit(EXIT_DETACHED) from None

    def observe(self, progress: Progress) -> None:
        """What goes on meanwhile.  A line of a log is shown as it is, cleaned; events move the live view."""
        match progress:
            case Note(text):
                self._line(f"launch: {clean(text)}", style="dim")
            case LogPiece(text):
                self._log(self._cleaner.clean(text))
            case RunNews(kind, fields):
                self._news(kind, fields)
            case RunAge(seconds):
                if view := self._live_view():
                    view.set_age(seconds)
            case Transfer(done, total, files):
                self._show_transfer(done, total, files)
            case Inferring(rows, all_rows, what):
                self._show_inferring(rows, all_rows, what)

    def observe_notes(self, progress: Progress) -> None:
        """As `observe`, for commands whose result is all that was asked for."""
        if isinstance(progress, Note):
            self.observe(progress)

    def close(self) -> None:
        """End the live view, the bar, and a line that was left open."""
        self._log(self._cleaner.rest())
        self._end_view()
        self._end_bar()
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
        return self._console(stderr=self.as_json or not sys.stdout.isatty())

    def _line(self, text: str, style: str = "") -> None:
        if self._view is not None:
            self._view.line(text, style)
            return
        console = self._progress_console
        # In a pipe the log keeps its bytes: this goes elsewhere.
        if not self._at_line_start and (self.as_json or console.is_terminal):
            self._log("\n")
        console.print(text, style=style, soft_wrap=not console.is_terminal)

    def _log(self, text: str) -> None:
        if not text:
            return
        if self._view is not None:
            self._view.write(text)
            return
        self._end_bar()
        stream = sys.stderr if self._log_on_stderr else sys.stdout
        stream.write(text)
        stream.flush()
        self._at_line_start = text.endswith("\n")

    def _news(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "state":
            reason = f": {fields['reason']}" if fields.get("reason") else ""
            self._line(_one_line(f"launch: {fields.get('state')}{reason}"), style="bold")
        if kind == "warning":
            self._line(_one_line(f"launch: warning: {fields.get('message')}"), style="bold")
        if kind == "state" and fields.get("state") in FINAL:
            self._end_view()
        elif view := self._live_view():
            view.take(kind, fields)

    def _live_view(self) -> LiveView | None:
        """The live view, where one can be drawn; begun with the first thing that it shows."""
        if self._view is None and not self._has_no_view:
            from launcher import live_view

            self._end_bar()
            self._view = live_view.on_stdout(self._price)
            self._has_no_view = self._view is None
            if self._view is not None and not self._at_line_start:
                sys.stdout.write("\n")
                self._at_line_start = True
        return self._view

    def _show_transfer(self, done: int, total: int, files: int) -> None:
        """A bar with rate and remaining time, on a terminal only; nothing where a transfer is over at once."""
        if self._bar is None or self._bar_of is not Transfer:
            self._end_view()
            if done >= total or total < WORTH_A_BAR_BYTES or not sys.stderr.isatty():
                return
            from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

            self._begin_bar(
                Transfer, f"{files:,} file{'s' * (files != 1)}", total, "{task.description}", BarColumn(None),
                DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True),
            )  # fmt: skip
        self._move_bar(done, total)

    def _show_inferring(self, done: int, total: int | None, what: str) -> None:
        """A bar with the remaining time on a terminal, else a line now and then; nothing of what is over at once."""
        self._end_view()
        if done == 0 or total is None or done >= total:
            self._end_bar()
            self._told_inferring_at = self._told_inferring_at or time.monotonic()
            return
        if not sys.stderr.isatty():
            if time.monotonic() - (self._told_inferring_at or 0.0) >= INFERRING_EVERY_S:
                self._told_inferring_at = time.monotonic()
                self._line(f"launch: {clean(what)}: {done:,} of {total:,} rows", style="dim")
            return
        if self._bar is None or self._bar_of is not Inferring:
            from rich.progress import BarColumn, TimeRemainingColumn

            self._begin_bar(
                Inferring, clean(what), total, "{task.description}", BarColumn(None),
                "{task.completed:,.0f} of {task.total:,.0f} rows", TimeRemainingColumn(compact=True),
            )  # fmt: skip
        self._move_bar(done, total)

    def _begin_bar(self, of: type[Progress], title: str, total: int, *columns: Any) -> None:
        from rich.progress import Progress as Bar

        self._end_bar()
        # Stdout stays what it is: in place of it rich would put a file that swallows the orders of a live view.
        self._bar = Bar(
            *columns, console=self._console(stderr=True), transient=True, expand=True, redirect_stdout=False
        )
        self._bar_of = of
        self._bar.add_task(title, total=total)
        self._bar.start()

    def _move_bar(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def _end_view(self) -> None:
        if self._view is not None:
            view, self._view = self._view, None
            view.close()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _one_line(text: str) -> str:
    return clean(text[:LINE_CHARACTERS]).replace("\n", " ")
