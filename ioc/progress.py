"""A progress bar for people, silence for pipes and log files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

COLUMNS = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


@contextmanager
def shown_progress(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr if that is a terminal.

    Gives a function of two arguments: how much is done, and (optional) what is being done now.
    """
    console = Console(stderr=True)
    with Progress(*COLUMNS, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=total)

        def show(done: int, doing: str | None = None) -> None:
            progress.update(bar, completed=done, description=doing)

        yield show
