"""Every field of std_daq's JSON objects has a PV, and it says the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from daq_core.config import REQUIRED
from rest_bridge import models
from tests.channel_access.epics_peer import EpicsPeer
from tests.processes.service import Service

RUN = {
    "message": "Message_RBV",
    "info.n_images": "NImages_RBV",
    "info.output_file": "OutputFile_RBV",
    "info.run_id": "RunId_RBV",
    "state": "State_RBV",
    "stats.n_write_completed": "NWriteCompleted_RBV",
}
MORE_OF_THE_RUN = {
    "stats.n_write_requested": "NWriteRequested_RBV",
    "stats.start_time": "StartTime_RBV",
    "stats.stop_time": "StopTime_RBV",
}
LOST = {
    "stats.efficiency": "AcqEfficiency_RBV",
    "stats.n_dropped": "DroppedImages_RBV",
    "stats.n_incomplete": "IncompleteImages_RBV",
    "stats.n_invalid_pixels": "InvalidPixels_RBV",
    "stats.n_mismatched": "MismatchedImages_RBV",
    "stats.n_missing_packets": "MissingPackets_RBV",
    "stats.n_sparse": "SparseImages_RBV",
    "stats.n_other_format": "OtherFormat_RBV",
}
STATUS = (
    {"state": "State_RBV"}
    | {f"acquisition.{key}": f"Acq{pv}" for key, pv in (RUN | MORE_OF_THE_RUN).items()}
    | {f"acquisition.{key}": pv for key, pv in LOST.items()}
)
STATS = {
    "detector.bytes_per_second": "DetBytesPerSec_RBV",
    "detector.images_per_second": "DetImagesPerSec_RBV",
    "writer.bytes_per_second": "WrtBytesPerSec_RBV",
    "writer.images_per_second": "WrtImagesPerSec_RBV",
}
DEPLOYMENT = {
    "config_id": "DeployConfigId_RBV",
    "status": "DeployStatus_RBV",
    "message": "DeployMessage_RBV",
    "stats.start_time": "DeployStartTime_RBV",
    "stats.stop_time": "DeployStopTime_RBV",
}
CONFIG = {
    "bit_depth": "CfgBitDepth_RBV",
    "detector_name": "CfgDetectorName_RBV",
    "detector_type": "CfgDetectorType_RBV",
    "image_pixel_height": "CfgImagePixelHeight_RBV",
    "image_pixel_width": "CfgImagePixelWidth_RBV",
    "n_modules": "CfgNModules_RBV",
    "start_udp_port": "CfgStartUdpPort_RBV",
    "writer_user_id": "CfgWriterUserId_RBV",
}
JSON_ALONE = {
    "servers",
    "reports",
    "module_positions",
    "silent_modules",
}  # objects and lists: PVs of their own, tested below


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """List the fields of an object with their paths: ``("info.n_images", 20)``."""
    for key, inner in value.items():
        if key in JSON_ALONE:
            continue
        if isinstance(inner, dict):
            yield from leaves(inner, f"{path}{key}.")
        else:
            yield path + key, inner


@pytest.fixture(scope="module")
def after_a_run(module_service: Service) -> Service:
    service = module_service
    service.post("/daq/config", {**service.config.as_dict(), "image_timeout_s": 0.25})
    service.wait_for("READY")
    file = str(service.output / "fields.h5")
    service.post("/writer/write_async", {"output_file": file, "n_images": 4, "run_id": 1684930336122153839})
    service.wait_for("WAITING_IMAGES")
    service.simulator().send(4, rate_hz=50)
    service.wait_for("FINISHED")
    return service


@pytest.fixture(scope="module")
def seen(after_a_run: Service) -> Iterator[EpicsPeer]:
    with EpicsPeer(after_a_run.ca_port) as peer:
        yield peer


def compare(service: Service, peer: EpicsPeer, said: dict[str, Any], pvs: dict[str, str], part: str) -> None:
    fields = dict(leaves(said))
    assert set(fields) == set(pvs), "a field without a PV, or a PV of no field"
    for path, value in fields.items():
        name = f"{service.prefix}DAQ:{part}{pvs[path]}"
        shown = peer.get(name) if isinstance(value, float) else peer.text(name)
        expected = value if isinstance(value, float) else str(value)
        assert shown == (pytest.approx(expected) if isinstance(value, float) else expected), name


def test_every_field_of_the_status_has_a_pv(after_a_run: Service, seen: EpicsPeer) -> None:
    compare(after_a_run, seen, after_a_run.status(), STATUS, "")
    assert seen.text(f"{after_a_run.prefix}DAQ:SilentModules_RBV") == ""


def test_every_field_of_a_log_entry_has_a_pv_or_is_in_the_json(after_a_run: Service, seen: EpicsPeer) -> None:
    (entry, *_) = after_a_run.get("/daq/logs/1")["logs"]
    assert entry == json.loads(seen.text(f"{after_a_run.prefix}DAQ:LogJson_RBV"))[0]
    compare(after_a_run, seen, without(entry, MORE_OF_THE_RUN | LOST), RUN, "Log1:")


def without(entry: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    dropped = {path.removeprefix("stats.") for path in paths}
    return entry | {"stats": {key: v for key, v in entry["stats"].items() if key not in dropped}}


def test_every_field_of_the_deployment_has_a_pv(after_a_run: Service, seen: EpicsPeer) -> None:
    deployment = after_a_run.get("/daq/deployment")["deployment"]
    compare(after_a_run, seen, deployment, DEPLOYMENT, "")
    servers = seen.text(f"{after_a_run.prefix}DAQ:DeployServersJson_RBV")
    assert json.loads(servers) == deployment["servers"]


def test_every_required_key_of_the_config_has_a_pv(after_a_run: Service, seen: EpicsPeer) -> None:
    config = after_a_run.get("/daq/config")["config"]
    assert set(CONFIG) | {"module_positions"} == set(REQUIRED)
    compare(after_a_run, seen, {key: config[key] for key in CONFIG}, CONFIG, "")
    assert json.loads(seen.text(f"{after_a_run.prefix}DAQ:CfgJson_RBV")) == config
    corners = seen.get(f"{after_a_run.prefix}DAQ:CfgModulePositions_RBV")
    assert corners == [n for corner in config["module_positions"].values() for n in corner]
    ids = seen.get(f"{after_a_run.prefix}DAQ:CfgModuleIds_RBV")
    assert [str(n) for n in ids] == list(config["module_positions"])


def test_every_field_of_the_rates_has_a_pv(after_a_run: Service, seen: EpicsPeer) -> None:
    schema = models.Stats.model_fields
    assert {f"{part}.{key}" for part in schema for key in models.Throughput.model_fields} == set(STATS)
    said = json.loads(seen.text(f"{after_a_run.prefix}DAQ:StatJson_RBV"))
    assert set(dict(leaves(said))) == set(STATS)
    for pv in STATS.values():
        assert seen.get(f"{after_a_run.prefix}DAQ:{pv}") >= 0
