"""The client commands: status, start, wait, watch, stop, config, logs, stats.

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

from ioc.program.client.config_changes import read_changes
from ioc.program.client.following import POLL_S, follow
from ioc.program.client.run_lines import is_whole, log_line, status_lines, why_busy
from ioc.program.client.service_client import ServiceClient, ServiceRefused

READY_WITHIN_S = 30.0  # a config change restarts the receiver, and a large ring takes its time


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
Strict = Annotated[bool, typer.Option("--strict", help="Exit code 4 when anything was lost.")]
Json = Annotated[bool, typer.Option("--json", help="Print the service's JSON, for scripts.")]

STD_DAQ_BUSY = "Cannot start new acquisition while previous one is running"
DEFAULT_URL = "http://127.0.0.1:5000"
EXITS = "\n\nExit codes: 0 done, 1 refused or not completed, 2 wrong usage, 3 no service answers."
STRICT_EXITS = EXITS.removesuffix(".") + ", 4 something was lost (--strict)."


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    for command in (status, start, wait, watch, stop, config, logs, stats):
        exits = STRICT_EXITS if command in (start, wait, watch) else EXITS
        app.command(rich_help_panel="Client of a running service", help=(command.__doc__ or "") + exits)(
            command
        )


def status(api_url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show whether the DAQ is ready, the present or last run, and what there is to look at."""
    answer = ServiceClient(api_url).answer("/writer/status")
    _show(answer["writer"], as_json, lambda writer: status_lines(writer, answer.get("warning", "")))


def start(
    output_file: Annotated[str, typer.Argument(help="File to write, absolute, as the service sees it.")],
    n_images: Annotated[int, typer.Argument(help="Number of images to take.")],
    run_id: Annotated[
        str | None, typer.Option(help="Name or number of the run; default: a new number.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the file is closed.")] = True,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="Stop the run when no new image has come for so many seconds.", show_default=False
        ),
    ] = None,
    strict: Strict = False,
    api_url: Url = DEFAULT_URL,
    token_file: Token = None,
    as_json: Json = False,
) -> None:
    """Start a run, and wait for its end. Ctrl-C while waiting leaves it running."""
    service = ServiceClient(api_url, token_file)
    body: dict[str, Any] = {"output_file": output_file, "n_images": n_images}
    if run_id is not None:
        body["run_id"] = int(run_id) if run_id.lstrip("-").isdecimal() else run_id
    if not wait and (strict or timeout is not None):
        option = "--strict" if strict else "--timeout"
        raise typer.BadParameter(f"{option} is for who waits for the end of the run, --no-wait does not.")
    started = _begin(service, body)
    if not wait:
        _show(started, as_json, status_lines)
        return
    _end_like(_until_ended(service, started, timeout), strict, as_json)


def wait(strict: Strict = False, api_url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Wait for the end of the run that is going on, and end as `start` does; without one, as the last did."""
    service = ServiceClient(api_url)
    _end_like(_until_ended(service, service.get("/writer/status", "writer"), bar=False), strict, as_json)


def watch(strict: Strict = False, api_url: Url = DEFAULT_URL, as_json: Json = False) -> None:
    """Show the bar of the run that is going on, whoever started it, and what it waits for, until its end.

    Ctrl-C leaves it running.
    """
    service = ServiceClient(api_url)
    shown = service.get("/writer/status", "writer")
    if shown["state"] != "WRITING":
        print("No run is going on; this was the last one.", file=sys.stderr)
    _end_like(_until_ended(service, shown), strict, as_json)


def _until_ended(
    service: ServiceClient, shown: dict[str, Any], timeout_s: float | None = None, *, bar: bool = True
) -> dict[str, Any]:
    """Follow a run to its end; Ctrl-C ends this program, and not the run."""
    try:
        return follow(service, shown, timeout_s, bar=bar)
    except KeyboardInterrupt:
        print("\nThe run goes on; `std-daq-ioc stop` ends it.", file=sys.stderr)
        raise typer.Exit(130) from None


def _end_like(ended: dict[str, Any], strict: bool, as_json: bool) -> None:
    """Show a run that has ended, and end this program with the exit code that tells how."""
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
    except ServiceRefused as refused:
        if not str(refused).startswith(STD_DAQ_BUSY):
            raise
        raise ServiceRefused(why_busy(service.get("/writer/status", "writer"))) from None
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


def _wait_until_ready(service: ServiceClient) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while service.get("/writer/status", "writer")["state"] != "READY":
        if time.monotonic() > deadline:
            deployment = service.get("/daq/deployment", "deployment")
            raise ServiceRefused(
                f"The config was accepted, but the DAQ is not READY: {deployment['message']}"
            )
        time.sleep(POLL_S)
