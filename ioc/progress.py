"""A progress bar for people, silence for pipes and log files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def shown_progress(what: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr if that is a terminal.

    Gives a function of three arguments: how much is done, and where they have changed (optional) what is
    being done now, and how much there is.
    """
    from rich.console import Console  # takes as long to load as the rest of a command
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task(what, total=total)

        def show(done: int, doing: str | None = None, total: int | None = None) -> None:
            progress.update(bar, completed=done, total=total, description=doing)

        yield show
