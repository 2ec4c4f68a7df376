"""The published client, std_daq_client 1.3.5, against a running service: nine methods and their errors."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from std_daq_client import StdDaqClient
from std_daq_client.client import StdDaqAdminException

from tests.conftest import StartService
from tests.processes.service import JUNGFRAU_2, Service

EMPTY_ACQUISITION = {
    "state": "FINISHED",
    "message": "",
    "info": {"n_images": 0, "output_file": None, "run_id": None},
    "stats": {
        "n_write_completed": 0,
        "n_write_requested": 0,
        "start_time": None,
        "stop_time": None,
        "n_incomplete": 0,
        "n_sparse": 0,
        "n_missing_packets": 0,
        "n_dropped": 0,
        "n_mismatched": 0,
        "n_other_format": 0,
        "n_invalid_pixels": 0,
        "silent_modules": [],
        "efficiency": None,
    },
}


@pytest.fixture
def client(service: Service) -> StdDaqClient:
    return StdDaqClient(service.rest_url)


@pytest.fixture
def path(service: Service, request: pytest.FixtureRequest) -> str:
    """A file that does not exist yet, in a folder that does."""
    return str(service.output / f"{request.node.name[:80]}.h5")


def run(client: StdDaqClient, service: Service, path: str, n_images: int = 3) -> dict:
    """Take a whole run and return the status after it."""
    client.start_writer_async({"output_file": path, "n_images": n_images})
    service.simulator().send(n_images, rate_hz=100)
    return service.wait_for("FINISHED", "FAILED")


def test_a_service_that_never_ran_is_ready_and_has_an_empty_acquisition(start_service: StartService) -> None:
    client = StdDaqClient(start_service().rest_url)
    assert client.get_status() == {"state": "READY", "acquisition": EMPTY_ACQUISITION}
    assert client.get_logs(5) == []


def test_an_async_start_answers_when_the_file_is_there_and_the_writer_waits(
    client: StdDaqClient, path: str
) -> None:
    before = time.time()
    status = client.start_writer_async({"output_file": path, "n_images": 10})
    assert status["state"] == "WRITING"
    assert status["acquisition"]["state"] == "WAITING_IMAGES"
    assert status["acquisition"]["message"] == ""
    assert status["acquisition"]["info"]["output_file"] == path
    assert status["acquisition"]["info"]["n_images"] == 10
    stats = status["acquisition"]["stats"]
    assert (stats["n_write_completed"], stats["n_write_requested"], stats["stop_time"]) == (0, 0, None)
    assert before - 0.1 <= stats["start_time"] <= time.time()
    assert Path(path).exists()


def test_a_run_without_an_id_is_named_after_the_time_in_nanoseconds(client: StdDaqClient, path: str) -> None:
    before = time.time_ns()
    status = client.start_writer_async({"output_file": path, "n_images": 1})
    run_id = status["acquisition"]["info"]["run_id"]
    assert isinstance(run_id, int)
    assert before <= run_id <= time.time_ns()


@pytest.mark.parametrize("run_id", [7, "20230526_113713.793", "scan é 1", -(2**63)])
def test_a_run_id_comes_back_as_it_was_given(client: StdDaqClient, path: str, run_id: object) -> None:
    status = client.start_writer_async({"output_file": path, "n_images": 1, "run_id": run_id})
    assert status["acquisition"]["info"]["run_id"] == run_id


def test_a_number_of_images_in_text_is_accepted(client: StdDaqClient, path: str) -> None:
    status = client.start_writer_async({"output_file": path, "n_images": "10"})
    assert status["acquisition"]["info"]["n_images"] == 10


def test_a_finished_run_counts_every_image(client: StdDaqClient, service: Service, path: str) -> None:
    status = run(client, service, path, n_images=5)
    assert status["state"] == "READY"
    assert status["acquisition"]["message"] == "Completed."
    assert status["acquisition"]["stats"]["n_write_completed"] == 5
    assert status["acquisition"]["stats"]["n_write_requested"] == 5
    assert status["acquisition"]["stats"]["stop_time"] >= status["acquisition"]["stats"]["start_time"]
    assert client.get_status() == status


def send_when_waiting(service: Service, n_images: int) -> threading.Thread:
    def send() -> None:
        service.wait_for("WAITING_IMAGES")
        service.simulator().send(n_images, rate_hz=100)

    sender = threading.Thread(target=send)
    sender.start()
    return sender


@pytest.mark.parametrize("n_images", [1, 4])
def test_a_sync_start_answers_when_the_file_is_closed(
    client: StdDaqClient, service: Service, path: str, n_images: int
) -> None:
    sender = send_when_waiting(service, n_images)
    status = client.start_writer_sync({"output_file": path, "n_images": n_images})
    sender.join()
    assert (status["state"], status["acquisition"]["state"]) == ("READY", "FINISHED")
    assert status["acquisition"]["stats"]["n_write_completed"] == n_images


def test_a_sync_start_that_takes_too_long_ends_with_the_originals_words_and_the_run_goes_on(
    start_service: StartService,
) -> None:
    service = start_service(sync_limit=0.5)
    client = StdDaqClient(service.rest_url)
    with pytest.raises(StdDaqAdminException) as refusal:
        client.start_writer_sync({"output_file": str(service.output / "long.h5"), "n_images": 10})
    assert str(refusal.value) == (
        "Your acquisition is still running, just the REST call has ended. Sync acquisition limit of "
        "0.5 seconds exceeded. Use async write call for long acquisitions."
    )
    assert client.get_status()["state"] == "WRITING"


def test_stop_ends_a_run_as_interrupted_with_what_came(
    client: StdDaqClient, service: Service, path: str
) -> None:
    client.start_writer_async({"output_file": path, "n_images": 1000})
    service.simulator().send(4, rate_hz=100)
    service.wait_for("WRITING")
    status = client.stop_writer()
    assert status["state"] == "READY"
    assert status["acquisition"]["state"] == "FINISHED"
    assert status["acquisition"]["message"] == "Interrupted."
    assert status["acquisition"]["stats"]["n_write_completed"] == 4


def test_stop_without_a_run_succeeds_and_changes_nothing(
    client: StdDaqClient, service: Service, path: str
) -> None:
    before, log = run(client, service, path), client.get_logs(100)
    assert client.stop_writer() == before
    assert client.get_logs(100) == log


def test_a_start_during_a_run_is_refused_with_the_originals_words(client: StdDaqClient, path: str) -> None:
    status = client.start_writer_async({"output_file": path, "n_images": 10})
    with pytest.raises(StdDaqAdminException) as refusal:
        client.start_writer_async({"output_file": path + "2", "n_images": 10})
    assert str(refusal.value) == (f"Cannot start new acquisition while previous one is running:\n {status}")
    assert client.get_status() == status
    assert not Path(path + "2").exists()


def test_a_file_that_is_there_is_not_overwritten(client: StdDaqClient, path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(StdDaqAdminException, match="exists"):
        client.start_writer_async({"output_file": path, "n_images": 1})
    assert Path(path).read_text() == "precious"
    assert client.get_status()["state"] == "READY"


def test_logs_are_a_list_newest_first(client: StdDaqClient, service: Service, path: str) -> None:
    first = run(client, service, path, 1)["acquisition"]
    second = run(client, service, path + "2", 2)["acquisition"]
    assert client.get_logs(2) == [{**second, "reports": []}, {**first, "reports": []}]
    assert client.get_logs(1) == [{**second, "reports": []}]


def test_an_interrupted_run_without_an_image_is_in_the_logs(client: StdDaqClient, path: str) -> None:
    client.start_writer_async({"output_file": path, "n_images": 2})
    ended = client.stop_writer()["acquisition"]
    assert ended["message"] == "Interrupted."
    assert client.get_logs(1) == [{**ended, "reports": []}]


@pytest.mark.parametrize("n_logs", [0, -1])
def test_no_logs_are_an_empty_list(client: StdDaqClient, n_logs: int) -> None:
    assert client.get_logs(n_logs) == []


def test_the_config_is_the_detector_json(client: StdDaqClient, service: Service) -> None:
    assert client.get_config() == service.config.as_dict()
    assert client.get_config()["module_positions"] == JUNGFRAU_2["module_positions"]


def test_the_config_answer_names_its_id_and_bit_depth(service: Service) -> None:
    answer = service.get("/daq/config")
    assert answer["message"] == "DAQ configured for bit_depth=16."
    assert answer["config_id"] == service.get("/daq/deployment")["deployment"]["config_id"]


def test_a_part_of_the_config_can_be_changed_and_the_rest_stays(
    client: StdDaqClient, service: Service
) -> None:
    config = client.set_config({"detector_name": "other", "writer_user_id": "-1", "unknown_key": 5})
    assert config == {**service.config.as_dict(), "detector_name": "other"}
    service.wait_for("READY", seconds=20)
    assert client.get_config() == config


def test_the_config_written_back_whole_is_accepted(client: StdDaqClient, service: Service) -> None:
    config = client.get_config()
    assert client.set_config(config) == config
    service.wait_for("READY", seconds=20)


def test_the_config_cannot_change_during_a_run(client: StdDaqClient, path: str) -> None:
    config = client.get_config()
    client.start_writer_async({"output_file": path, "n_images": 10})
    with pytest.raises(StdDaqAdminException, match="run is going on"):
        client.set_config({"detector_name": "other"})
    assert client.get_config() == config


def test_statistics_are_two_rates_each_zero_when_nothing_comes(client: StdDaqClient) -> None:
    stats = client.get_stats()
    assert set(stats) == {"detector", "writer"}
    for side in stats.values():
        assert set(side) == {"bytes_per_second", "images_per_second"}
        assert all(isinstance(rate, float) for rate in side.values())


def test_statistics_show_the_rate_of_a_run(client: StdDaqClient, service: Service, path: str) -> None:
    client.start_writer_async({"output_file": path, "n_images": 1000})
    sender = threading.Thread(target=lambda: service.simulator().send(60, rate_hz=20))
    sender.start()
    time.sleep(2.2)
    stats = client.get_stats()
    sender.join()
    for side in stats.values():
        assert 5 < side["images_per_second"] < 60
        assert side["bytes_per_second"] == pytest.approx(side["images_per_second"] * 1024 * 1024 * 2)


def test_a_deployment_that_is_done_says_so(client: StdDaqClient, service: Service) -> None:
    service.wait_for("READY")
    deployment = client.get_deployment_status()
    assert (deployment["status"], deployment["message"]) == ("SUCCESS", "Deployment successful")
    assert set(deployment["servers"].values()) == {"Done"}
    milliseconds = deployment["config_id"].partition("-")[0]
    assert deployment["stats"]["start_time"] == pytest.approx(int(milliseconds) / 1000, abs=1e-3)
    assert deployment["stats"]["stop_time"] >= deployment["stats"]["start_time"]


def test_every_answer_carries_the_originals_message(service: Service, path: str) -> None:
    post, get = service.post, service.get
    request = {"output_file": path, "n_images": 1}
    assert get("/writer/status")["message"] == "Writer is READY"
    assert post("/writer/write_async", request)["message"] == "Writing started."
    assert get("/writer/status")["message"] == "Writer is WRITING"
    assert post("/writer/stop")["message"] == "Writing stopped."
    assert get("/daq/stats")["message"] == "DAQ statistics"
    assert get("/daq/logs/1")["message"] == "DAQ logs"
    assert get("/daq/deployment")["message"] == "Deployment status"
    assert post("/daq/config", {})["message"] == "Setting new daq config."
    sender = send_when_waiting(service, 1)
    assert (
        post("/writer/write_sync", {**request, "output_file": path + "2"})["message"] == "Writing finished."
    )
    sender.join()
