"""schemathesis reads the OpenAPI page and sends what it allows, and what not, to a running service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.processes.service import Service

schemathesis = pytest.importorskip("schemathesis")

ROUTES = (
    ("GET", "/writer/status"),
    ("POST", "/writer/write_async"),
    ("POST", "/writer/stop"),
    ("GET", "/daq/config"),
    ("POST", "/daq/config"),
    ("GET", "/daq/stats"),
    ("GET", "/daq/logs/{n_logs}"),
    ("GET", "/daq/deployment"),
)

WITH_INPUT = (("POST", "/writer/write_async"), ("POST", "/daq/config"), ("GET", "/daq/logs/{n_logs}"))


@pytest.mark.timeout(300)  # a config that is taken up costs a receiver's start, and another to go back
@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        *((method, path, "positive") for method, path in ROUTES),
        *((method, path, "negative") for method, path in ROUTES if (method, path) in WITH_INPUT),
    ],
)
def test_every_answer_to_anything_is_the_envelope_of_the_page(
    service: Service, method: str, path: str, mode: str
) -> None:
    """HTTP 200, JSON as the page describes it, never a fault of the service's own.

    ``write_sync`` takes the same body as ``write_async``, and would wait for images.
    """
    page = schemathesis.openapi.from_url(service.rest_url + "/openapi.json")
    operation = page[path][method]
    cases = operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode))
    try_all(cases, lambda case: send(service, case))


def try_all(cases: Any, attempt: Callable[[Any], None]) -> None:
    @settings(
        max_examples=15,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],  # to make a found case smaller takes a config change for each attempt
    )
    @given(case=cases)
    def each(case: Any) -> None:
        attempt(case)

    each()


def send(service: Service, case: Any) -> None:
    path = str(service.output / "a.h5")
    if isinstance(case.body, dict) and str(case.body.get("output_file", "")).startswith("/"):
        case.body = {**case.body, "output_file": path}  # what it may write, it writes into our folder
    response = case.call(timeout=30)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["status"] in ("ok", "error")
    assert "inside the service" not in answer["message"]
    case.operation.validate_response(response)
    service.reset()
    Path(path).unlink(missing_ok=True)
