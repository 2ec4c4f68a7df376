"""The client commands: status, start, stop, config, logs, stats.

They speak to a running service by REST, so they work from any machine that
reaches it, and know nothing of the DAQ but its answers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ioc.config_changes import read_changes
from ioc.progress import shown_progress
from ioc.run_lines import is_whole, log_line, status_lines, why_busy
from ioc.service_client import Refused, ServiceClient

POLL_S = 0.1
READY_WITHIN_S = 30.0  # a config change restarts the receiver, which takes less than 5 s


def _address(context: typer.Context, url: str) -> str:
    """Where nothing names the service, it is on this machine, at the port that `serve` would take."""
    source = context.get_parameter_source("api_url")
    if source is not None and source.name != "DEFAULT":
        return url
    port = os.environ.get("STD_DAQ_REST_PORT") or "5000"
    if not (port.isascii() and port.isdecimal() and 1 <= int(port) <= 65535):
        raise typer.BadParameter(f"STD_DAQ_REST_PORT is {port!r}; it must be a port, 1 to 65535.")
    return f"http://127.0.0.1:{port}"


Url = Annotated[
    str,
    typer.Option(
        "--api-url",
        "-b",
        envvar="STD_DAQ_API_URL",
        callback=_address,
        help="REST address of the service; by default at port STD_DAQ_REST_PORT of this machine.",
    ),
]
Token = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="STD_DAQ_TOKEN_FILE",
        help="File with the service's secret, if it has one.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the service's JSON, for scripts.")]

STD_DAQ_BUSY = "Cannot start new acquisition while previous one is running"
DEFAULT_URL = "http://127.0.0.1:5000"
EXITS = "\n\nExit codes: 0 done, 1 refused or not completed, 2 wrong usage, 3 no service answers."
STRICT_EXITS = EXITS.removesuffix(".") + ", 4 something was lost (--strict)."


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (status, start, stop, config, logs, stats):
        exits = STRICT_EXITS if command is start else EXITS
        app.command(rich_help_panel="Client of a running service", help=(command.__doc__ or "") + exits)(
            command
        )


def status(api_url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show whether the DAQ is ready, and the present or last run."""
    _show(ServiceClient(api_url).get("/writer/status", "writer"), as_json, status_lines)


def start(
    output_file: Annotated[str, typer.Argument(help="File to write, absolute, as the service sees it.")],
    n_images: Annotated[int, typer.Argument(help="Number of images to take.")],
    run_id: Annotated[
        str | None, typer.Option(help="Name or number of the run; default: a new number.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the file is closed.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 4 when anything was lost.")] = False,
    api_url: Url = DEFAULT_URL,
    token_file: Token = None,
    as_json: Json = False,
) -> None:
    """Start a run, and wait for its end. Ctrl-C while waiting leaves it running."""
    service = ServiceClient(api_url, token_file)
    body: dict[str, Any] = {"output_file": output_file, "n_images": n_images}
    if run_id is not None:
        body["run_id"] = int(run_id) if run_id.lstrip("-").isdecimal() else run_id
    if strict and not wait:
        raise typer.BadParameter("--strict looks at the end of the run, --no-wait does not wait for it.")
    started = _begin(service, body)
    if not wait:
        _show(started, as_json, status_lines)
        return
    try:
        ended = _follow(service, started)
    except KeyboardInterrupt:
        print("\nThe run goes on; `std-daq-ioc stop` ends it.", file=sys.stderr)
        raise typer.Exit(130) from None
    _show(ended, as_json, status_lines)
    if ended["acquisition"]["message"] != "Completed.":
        raise typer.Exit(1)
    if strict and not is_whole(ended["acquisition"]):
        raise typer.Exit(4)


def stop(api_url: Url = DEFAULT_URL, token_file: Token = None, as_json: Json = False) -> None:
    """Stop the run: what has arrived is written, the file is closed. Does nothing when none is running."""
    _show(ServiceClient(api_url, token_file).post("/writer/stop", "writer", {}), as_json, status_lines)


def config(
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] [KEY=VALUE]...", help="What to change; nothing: only show.", show_default=False
        ),
    ] = None,
    api_url: Url = DEFAULT_URL,
    token_file: Token = None,
    as_json: Json = False,
) -> None:
    """Show the detector config, or change it: by JSON file, key (bit_depth=32), or both. Waits for READY."""
    service = ServiceClient(api_url, token_file)
    if changes:
        service.post("/daq/config", "config", read_changes(changes))
        _wait_until_ready(service)
    _show(service.get("/daq/config", "config"), as_json, lambda known: [json.dumps(known, indent=1)])


def logs(
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 10,
    api_url: Url = DEFAULT_URL,
    as_json: Json = False,
) -> None:
    """List the runs that ended, newest first, with what they lost; those that failed, too."""
    _show(
        ServiceClient(api_url).get(f"/daq/runs/{n}", "runs"),
        as_json,
        lambda runs: [log_line(run) for run in runs],
    )


def stats(api_url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show the rates of the last second: images from the detector, images to the file."""
    _show(ServiceClient(api_url).get("/daq/stats", "stats"), as_json, _stats_lines)


def _begin(service: ServiceClient, body: dict[str, Any]) -> dict[str, Any]:
    """Have the run started; where one is going on already, say which."""
    try:
        started: dict[str, Any] = service.post("/writer/write_async", "writer", body)
    except Refused as refused:
        if not str(refused).startswith(STD_DAQ_BUSY):
            raise
        raise Refused(why_busy(service.get("/writer/status", "writer"))) from None
    return started


def _show(answer: Any, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    no_colour = False if os.environ.get("NO_COLOR") else None  # None: only on a terminal
    for line in [json.dumps(answer)] if as_json else lines(answer):
        typer.echo(line, color=no_colour)


def _stats_lines(rates: dict[str, Any] | None) -> list[str]:
    return [
        f"{name:<9}{rate['images_per_second']:10.1f} images/s {rate['bytes_per_second'] / 1e6:10.1f} MB/s"
        for name, rate in (rates or {}).items()
    ]


def _follow(service: ServiceClient, started: dict[str, Any]) -> dict[str, Any]:
    """Wait for the end of the run that was started; return the status that shows it."""
    run = started["acquisition"]
    with shown_progress(run["state"], run["info"]["n_images"]) as show:
        status = started
        while status["state"] == "WRITING":
            time.sleep(POLL_S)
            status = service.get("/writer/status", "writer")
            now = status["acquisition"]
            if now["stats"]["start_time"] != run["stats"]["start_time"]:
                raise Refused(
                    "Another run began before this one's end was seen; `std-daq-ioc logs` shows both."
                )
            show(now["stats"]["n_write_completed"], now["state"])
    if status["state"] == "UNKNOWN":
        raise Refused("The DAQ is in state UNKNOWN: see its log; `std-daq-ioc stop` brings it back to READY.")
    final: dict[str, Any] = status
    return final


def _wait_until_ready(service: ServiceClient) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while service.get("/writer/status", "writer")["state"] != "READY":
        if time.monotonic() > deadline:
            deployment = service.get("/daq/deployment", "deployment")
            raise Refused(f"The config was accepted, but the DAQ is not READY: {deployment['message']}")
        time.sleep(POLL_S)
