"""The nine ``std_cli_*`` tools of std_daq_client 1.3.5, as a shell runs them, against a running service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.processes.service import Service

TOOLS = Path(sys.executable).parent


def tool(service: Service, name: str, *arguments: object, by_environment: bool = False) -> Any:
    """Run a tool against the service and return the JSON it prints."""
    done = run(service, name, *arguments, by_environment=by_environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(
    service: Service, name: str, *arguments: object, by_environment: bool = False
) -> subprocess.CompletedProcess[str]:
    where = [] if by_environment else ["-b", service.rest_url]
    environment = {key: value for key, value in os.environ.items() if key != "STD_DAQ_API_URL"}
    if by_environment:
        environment["STD_DAQ_API_URL"] = service.rest_url
    command = [TOOLS / f"std_cli_{name}", *where, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def send_when_waiting(service: Service, n_images: int) -> threading.Thread:
    def send() -> None:
        service.wait_for("WAITING_IMAGES", seconds=30)
        service.simulator().send(n_images, rate_hz=100)

    sender = threading.Thread(target=send)
    sender.start()
    return sender


def test_get_status_prints_the_status(service: Service) -> None:
    assert tool(service, "get_status") == service.status()


def test_the_address_can_come_from_the_environment(service: Service) -> None:
    assert tool(service, "get_status", by_environment=True) == service.status()


def test_get_config_prints_the_config(service: Service) -> None:
    assert tool(service, "get_config") == service.config.as_dict()


def test_set_config_takes_a_file_and_prints_the_whole_new_config(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "changes.json"
    file.write_text('{"writer_user_id": 0}')
    expected = {**service.config.as_dict(), "writer_user_id": 0}
    assert tool(service, "set_config", file) == expected
    assert tool(service, "get_config") == expected


def test_get_stats_prints_the_rates(service: Service) -> None:
    assert set(tool(service, "get_stats")) == {"detector", "writer"}


def test_get_deploy_status_prints_the_deployment(service: Service) -> None:
    service.wait_for("READY")
    assert tool(service, "get_deploy_status")["status"] == "SUCCESS"


def test_write_sync_prints_the_finished_run_and_get_logs_lists_it(service: Service) -> None:
    path = service.output / "sync.h5"
    sender = send_when_waiting(service, 3)
    status = tool(service, "write_sync", path, 3)
    sender.join()
    assert (status["state"], status["acquisition"]["message"]) == ("READY", "Completed.")
    assert path.exists()
    assert tool(service, "get_logs") == [{**status["acquisition"], "reports": []}]


def test_write_async_starts_a_run_and_write_stop_ends_it(service: Service) -> None:
    path = service.output / "async.h5"
    status = tool(service, "write_async", path, 3)
    assert (status["state"], status["acquisition"]["state"]) == ("WRITING", "WAITING_IMAGES")
    status = tool(service, "write_stop")
    assert (status["state"], status["acquisition"]["message"]) == ("READY", "Interrupted.")


def test_a_refusal_ends_a_tool_with_exit_code_1_and_the_reason(service: Service) -> None:
    done = run(service, "write_async", "relative.h5", 3)
    assert done.returncode == 1
    assert 'Invalid output_file=relative.h5. Path must be absolute - starts with "/".' in done.stderr


def test_get_logs_prints_as_many_as_asked_for(service: Service) -> None:
    for number in range(2):
        tool(service, "write_async", service.output / f"log{number}.h5", 1)
        tool(service, "write_stop")
    files = [Path(entry["info"]["output_file"]).name for entry in tool(service, "get_logs", "-n", 2)]
    assert files == ["log1.h5", "log0.h5"]
