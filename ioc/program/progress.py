"""A progress bar for people, silence for pipes and log files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def shown_progress(what: str, total: int | None, *, bar: bool = True) -> Iterator[Callable[..., None]]:
    """Show a bar on stderr if that is a terminal.

    Gives a function of four arguments: how much is done, and where they have changed (optional) what is
    being done now, how much there is, and a note for people. Each note is printed once, to a pipe too.
    """
    from rich.console import Console  # takes as long to load as the rest of a command
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not (bar and console.is_terminal)
    ) as progress:
        task = progress.add_task(what, total=total)

        noted = {""}

        def show(done: int, doing: str | None = None, total: int | None = None, note: str = "") -> None:
            if note not in noted:
                noted.add(note)
                console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
            progress.update(task, completed=done, total=total, description=doing)

        yield show
