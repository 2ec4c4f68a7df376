"""Bad input on the REST face: HTTP 200 with a clear error in the envelope, and nothing changed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from tests.processes.service import Service

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def service(service: Service) -> Iterator[Service]:
    """The running service; after the test, all that REST shows of it and its folder are as before."""
    before = service.everything_shown()
    yield service
    assert service.everything_shown() == before


def error_of(response: requests.Response, http_status: int = 200) -> str:
    """Return the message of an answer that must be std_daq's error envelope, and nothing else."""
    assert response.status_code == http_status
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert set(answer) == {"status", "message"}
    assert answer["status"] == "error"
    assert answer["message"]
    assert len(answer["message"]) < 5000
    assert "Traceback" not in answer["message"]
    return str(answer["message"])


def post(service: Service, path: str, body: bytes) -> str:
    return error_of(requests.post(service.rest_url + path, data=body, headers=JSON, timeout=30))


NO_INTEGER = "Cannot convert n_images={} to an integer. Must be an integer >= 1."
TOO_SMALL = "Invalid n_images={}. Must be an integer >= 1."
TOO_LARGE = "Invalid n_images={}. Must be at most 2147483647."


@pytest.mark.parametrize(
    ("n_images", "message"),
    [
        ("0", TOO_SMALL.format(0)),
        ("-1", TOO_SMALL.format(-1)),
        ('"0"', TOO_SMALL.format(0)),
        ("2147483648", TOO_LARGE.format(2**31)),
        ("9223372036854775808", TOO_LARGE.format(2**63)),
        ("1e18", TOO_LARGE.format(1e18)),
        pytest.param("1" + 400 * "0", TOO_LARGE.format(10**400), id="401 digits"),
        ("10.5", NO_INTEGER.format(10.5)),
        ('"10.5"', NO_INTEGER.format("10.5")),
        ('"ten"', NO_INTEGER.format("ten")),
        ('""', NO_INTEGER.format("")),
        ("true", NO_INTEGER.format(True)),
        ("[10]", NO_INTEGER.format([10])),
        ("{}", NO_INTEGER.format({})),
        ("null", "Mandatory field missing: n_images"),
    ],
)
def test_a_number_of_images_that_is_none_is_refused(service: Service, n_images: str, message: str) -> None:
    body = f'{{"output_file": "{service.output}/a.h5", "n_images": {n_images}}}'
    assert post(service, "/writer/write_async", body.encode()) == message


NOT_ABSOLUTE = 'Invalid output_file={}. Path must be absolute - starts with "/".'


@pytest.mark.parametrize(
    ("output_file", "message"),
    [
        (None, "Mandatory field missing: output_file"),
        ("a.h5", NOT_ABSOLUTE.format("a.h5")),
        ("", NOT_ABSOLUTE.format("")),
        (7, NOT_ABSOLUTE.format(7)),
        (["/a.h5"], NOT_ABSOLUTE.format(["/a.h5"])),
        ("OUT/../a.h5", "Invalid output_file=OUT/../a.h5. Path must not contain '..'."),
        ("OUT/a\0.h5", "control character"),
        ("OUT/a\n.h5", "control character"),
        ("OUT/\ud800.h5", "not valid Unicode"),
        pytest.param("OUT/" + 300 * "x", "255", id="a part of 300 bytes"),
        pytest.param("OUT/" + 300 * "xyz/" + "a.h5", "1023", id="a path of 1200 bytes"),
        ("OUT/", "Path must name a file, not a folder."),
        ("OUT/none/a.h5", "Output file folder OUT/none does not exist. Please create it first."),
        ("OUT", "Invalid output_file=OUT. There is a folder of that name."),
        ("/dev/null", ""),
        ("/proc/a.h5", ""),
    ],
)
@pytest.mark.parametrize("path", ["/writer/write_async", "/writer/write_sync"])
def test_an_output_file_that_cannot_be_is_refused(
    service: Service, path: str, output_file: object, message: str
) -> None:
    if isinstance(output_file, str):
        output_file = output_file.replace("OUT", str(service.output))
    body = json.dumps({"output_file": output_file, "n_images": 1})
    assert message.replace("OUT", str(service.output)) in post(service, path, body.encode())


@pytest.mark.parametrize(
    "run_id", ["", 257 * "x", "a\nb", 2**63, -(2**63) - 1, 1.5, True, [], {}, "\ud800"], ids=ascii
)
def test_a_run_id_that_is_none_is_refused(service: Service, run_id: object) -> None:
    body = json.dumps({"output_file": f"{service.output}/a.h5", "n_images": 1, "run_id": run_id})
    assert post(service, "/writer/write_async", body.encode()).startswith("Invalid run_id=")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"n_images=10", "not valid JSON"),
        (b"null", "must be a JSON object"),
        (b'[{"n_images": 1}]', "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b'{"n_images": NaN}', "NaN is not a number"),
        (b'{"n_images": -Infinity}', "-Infinity is not a number"),
        (b'{"n_images": 1e999}', "1e999 is too large a number"),
        (b'{"n_images": 1, "n_images": 2}', "the key 'n_images' is given twice"),
        (b'{"output_file": "/tmp/\xff.h5"}', "byte 22 is not UTF-8"),
        pytest.param(b"\xff\xfe{\x00}\x00", "byte 0 is not UTF-8", id="UTF-16"),
        pytest.param(b'{"n_images": ' + 5000 * b"1" + b"}", "not valid JSON", id="5000 digits"),
        pytest.param(b'{"a": ' + 100 * b"[" + 100 * b"]" + b"}", "nested too deeply", id="100 levels"),
        pytest.param(b'{"a": ' + 100_000 * b"[" + b"}", "nested too deeply", id="100,000 levels"),
        pytest.param(b'{"a": "' + 2_000_000 * b"x" + b'"}', "larger than 1000000 bytes", id="2 MB"),
    ],
)
@pytest.mark.parametrize("path", ["/writer/write_async", "/writer/write_sync", "/daq/config"])
def test_a_body_that_is_no_json_object_is_refused(
    service: Service, path: str, body: bytes, message: str
) -> None:
    assert message in post(service, path, body)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bit_depth": 7}, "bit_depth"),
        ({"bit_depth": "sixteen"}, "non-int value bit_depth"),
        ({"bit_depth": None}, "non-int value bit_depth"),
        ({"bit_depth": True}, "non-int value bit_depth"),
        ({"detector_type": "pilatus"}, "pilatus"),
        ({"detector_name": ""}, "detector_name"),
        ({"detector_name": "a/b"}, "detector_name"),
        ({"detector_name": "entry"}, "detector_name"),
        ({"n_modules": 0}, "n_modules"),
        ({"n_modules": 1}, "n_modules is 1"),
        ({"image_pixel_width": 0}, "image_pixel_width"),
        ({"image_pixel_width": 1e18}, "image_pixel_width"),
        ({"start_udp_port": 70000}, "start_udp_port"),
        ({"start_udp_port": 65535}, "65535"),
        ({"start_udp_port": -1}, "start_udp_port"),
        ({"writer_user_id": 2**32}, "writer_user_id"),
        ({"writer_user_id": "root"}, "non-int value writer_user_id"),
        ({"module_positions": {}}, "module_positions"),
        ({"module_positions": [[0, 0, 1023, 511]]}, "module_positions"),
        ({"module_positions": {"0": [0, 0, 1023]}}, "module_positions"),
        ({"module_positions": {"0": [0, 0, 1000, 511]}}, "module 0"),
        ({"module_positions": {"0": [0, 0, 1023, 511], "1": [0, 1, 1023, 512]}}, "overlaps"),
        ({"module_positions": {"0": [1, 0, 1024, 511]}}, "module 0"),
        ({"module_positions": {"2": [0, 0, 1023, 511]}}, "module 2"),
        ({"module_positions": {"x": [0, 0, 1023, 511]}}, "module_positions"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_a_config_that_cannot_be_is_refused(
    service: Service, changes: dict[str, object], message: str
) -> None:
    error = post(service, "/daq/config", json.dumps(changes).encode())
    assert error.startswith("Config errors: ")
    assert message in error


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/health"),
        ("GET", "/healthz"),
        ("HEAD", "/metrics"),
        ("GET", "/writer/status/"),
        ("POST", "/writer"),
        ("GET", "/daq/logs"),
        ("GET", "/daq/health"),
        ("GET", "/docs/"),
        ("POST", "/"),
        ("DELETE", "/openapi.json"),
    ],
)
def test_what_is_none_of_std_daqs_routes_is_no_success_for_a_health_check(
    service: Service, method: str, path: str
) -> None:
    answer = requests.request(method, service.rest_url + path, timeout=10, allow_redirects=False)
    is_there = path in ("/", "/openapi.json")
    assert answer.status_code == (405 if is_there else 404)
    if method != "HEAD":
        said = "405 Method Not Allowed: " if is_there else "404 Not Found: there is no "
        assert error_of(answer, answer.status_code).startswith(said)


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/writer/stop", "405 Method Not Allowed"),
        ("GET", "/writer/write_sync", "use POST"),
        ("POST", "/writer/status", "use GET"),
        ("DELETE", "/daq/config", "405 Method Not Allowed"),
        ("PUT", "/daq/config", "405 Method Not Allowed"),
        ("OPTIONS", "/daq/config", "405 Method Not Allowed"),
        ("GET", "/daq/logs/many", "Must be an integer"),
        ("GET", "/daq/logs/1.5", "Must be an integer"),
        ("GET", "/daq/logs/" + 5000 * "1", "Must be an integer"),
    ],
)
def test_a_path_or_method_that_is_not_there_is_an_error_in_the_envelope(
    service: Service, method: str, path: str, message: str
) -> None:
    answer = requests.request(method, service.rest_url + path, timeout=10, allow_redirects=False)
    assert message in error_of(answer)


def test_stop_takes_any_body_or_none(service: Service) -> None:
    for body in (b"", b"{}", b"not JSON"):
        answer = requests.post(service.rest_url + "/writer/stop", data=body, timeout=10).json()
        assert (answer["status"], answer["message"]) == ("ok", "Writing stopped.")


@pytest.mark.parametrize(
    "text",
    [
        b"\x00\xff\x17garbage\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /writer/write_async HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /writer/write_async HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        b"GET /writer/status HTTP/1.1\r\nX: " + 200_000 * b"x" + b"\r\n\r\n",
    ],
    ids=["bytes", "version", "negative length", "half a body", "200 kB header"],
)
def test_bytes_that_are_no_request_do_not_disturb_others(service: Service, text: bytes) -> None:
    address = urlsplit(service.rest_url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(text)
        assert service.get("/writer/status")["status"] == "ok"
