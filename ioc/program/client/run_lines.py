"""How the client commands show a run: line by line, and as one line of a list.

A run is what the service's REST says of it, as JSON. Losses and failures are in colour; the
command that prints takes the colour out where its output does not go to a terminal.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import typer

from daq_core.state.losses import Losses, in_short, in_words

LOST, FAILED = typer.colors.YELLOW, typer.colors.RED
NOT_KNOWN = "not known"


def status_lines(writer: dict[str, Any], warning: str = "") -> list[str]:
    """Show the state of the DAQ, its present or last run, and what the service warns of."""
    warned = [typer.style(f"warning  {warning}", fg=LOST)] if warning else []
    return [*_run_lines(writer), *warned]


def _run_lines(writer: dict[str, Any]) -> list[str]:
    run, info, counts = (writer["acquisition"], writer["acquisition"]["info"], writer["acquisition"]["stats"])
    lines = [f"state    {writer['state']}"]
    if counts["start_time"] is None and not info["output_file"]:
        return [*lines, "run      none yet"]
    ended = f"run      {run['state']} {run['message']}".rstrip()
    lines.append(typer.style(ended, fg=FAILED) if run["state"] == "FAILED" else ended)
    lines.append(f"file     {info['output_file']}")
    lines.append(f"images   {counts['n_write_completed']} of {info['n_images'] or 'any number'} written")
    lines.append(_losses_line(counts))
    lines.append(f"run id   {info['run_id']}")
    if counts["start_time"] is not None:
        lines.append(f"started  {local(counts['start_time'])}{_took(counts)}")
    return lines


def log_line(run: dict[str, Any]) -> str:
    """Show a run that ended: when it began, how it ended, its images and losses, its file."""
    info, counts = run["info"], run["stats"]
    failed, losses = run["state"] == "FAILED", losses_of(counts)
    ended = run["state"] if failed else f"{run['state']} {run['message']}"
    began = local(counts["start_time"]) if counts["start_time"] is not None else "-"
    images = f"{counts['n_write_completed']}/{info['n_images'] or '-'}"
    lost = NOT_KNOWN if losses is None else in_short(losses)
    line = f"{began}  {ended:<21} {images:>13} images  {lost:<14}  {info['output_file']}"
    if failed:
        return typer.style(f"{line}  {run['message']}", fg=FAILED)
    return typer.style(line, fg=LOST) if losses is not None and losses.any else line


def why_busy(writer: dict[str, Any]) -> str:
    """Say why no run can be started now, and what to do."""
    run, info, counts = (writer["acquisition"], writer["acquisition"]["info"], writer["acquisition"]["stats"])
    match writer["state"]:
        case "READY":
            return "Another run was about to begin, or has ended by now. Start again."
        case "WRITING" if run["state"] in ("FINISHED", "FAILED"):
            return "A run is about to begin. Wait until it ends, or end it: std-daq-ioc stop."
        case "WRITING":
            images = f"{counts['n_write_completed']} of {info['n_images'] or 'any number of'} images"
            return (
                f"A run is going on: {info['output_file']}, {images}, since {local(counts['start_time'])}. "
                "Wait until it ends, or end it: std-daq-ioc stop."
            )
    return (
        "The DAQ is not ready (state UNKNOWN): its receiver is down, or a new config is taken up; its log "
        "says more. std-daq-ioc stop brings it back to READY."
    )


def losses_of(counts: dict[str, Any]) -> Losses | None:
    """Return what a run lost, as far as its ``stats`` say; None where nobody knows."""
    if counts.get("n_incomplete") is None:
        return None
    return Losses(
        missing_packets=counts["n_missing_packets"],
        incomplete_images=counts["n_incomplete"],
        sparse_images=counts["n_sparse"],
        dropped_images=counts["n_dropped"],
        mismatched_images=counts["n_mismatched"],
        other_format_images=counts["n_other_format"],
        invalid_pixels=counts["n_invalid_pixels"],
        silent_modules=tuple(counts["silent_modules"]),
    )


def is_whole(run: dict[str, Any]) -> bool:
    """Tell whether it is known that a run lost nothing."""
    losses = losses_of(run["stats"])
    return losses is not None and not losses.any


def _losses_line(counts: dict[str, Any]) -> str:
    losses, efficiency = losses_of(counts), counts.get("efficiency")
    if losses is None:
        return f"losses   {NOT_KNOWN}"
    line = f"losses   {in_words(losses) or 'none'}"
    if efficiency is not None:
        line += f"; efficiency {efficiency:.1%}"
    return typer.style(line, fg=LOST) if losses.any else line


def local(unix_s: float) -> str:
    """Return a time in this machine's zone, to the second."""
    return datetime.fromtimestamp(unix_s).astimezone().isoformat(" ", timespec="seconds")


def _took(counts: dict[str, Any]) -> str:
    end = counts["stop_time"]
    return f", took {end - counts['start_time']:.1f} s" if end is not None else ""
