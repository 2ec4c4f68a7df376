"""Every PV, one line each: its name, what it shows, what it says of itself, and what a put does.

The rows of ``IOC:`` are in ``ioc.pvs.health``, those of areaDetector in ``ioc.pvs.area_detector``.
``v`` is a :class:`ioc.pvs.view.View`. The records, ``db/daq.template`` and the PV
reference are made from ``PVS``. To add a PV, add a line and run
``std-daq-ioc db --reference docs/reference/pvs.md``, and say what clients may rely on in
``tests/unit/agreed_pvs.csv``; a new prefix is one more entry of ``ioc.pvs.row.MACROS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from daq_core.detectors import FORMATS
from daq_core.linux.sockets import BUFFER_BYTES
from daq_core.state.status import MAX_N_IMAGES
from ioc.commands.commands import MAX_LOG_N, Commands, Put, stage
from ioc.pvs.access import ACCESS
from ioc.pvs.alarms import Limits, above_zero, is_error, not_empty, rising, warns
from ioc.pvs.area_detector import AREA_DETECTOR
from ioc.pvs.health import HEALTH
from ioc.pvs.row import (
    Row,
    Source,
    choice,
    command,
    count,
    enum,
    flag,
    for_experts,
    integers,
    number,
    setting,
    string,
    text,
)
from ioc.pvs.view import iso, shown
from ioc.values.staging import MAX_MODULES

STATES = "READY|WRITING|UNKNOWN:INVALID"
ENDED = "NONE|FINISHED|FAILED|WRITING|WAITING_IMAGES|ACQUIRING_IMAGES|FLUSHING_IMAGES"
RUNNING = ENDED.replace("FAILED", "FAILED:MAJOR")  # in the log, an old failure is no alarm of today
RESULTS = "Idle|Running|OK|Rejected:MINOR|Failed:MAJOR|Timeout:MAJOR"
DEPLOYMENTS = "UNKNOWN|SUCCESS|ERROR:MAJOR|RUNNING"
DETECTORS = "|".join(dict.fromkeys(("eiger", "gigafrost", "jungfrau", "bsread", "other", *FORMATS)))
"""Clients rely on the numbers of the first five; the types that were added since follow them."""
PATH, RUN_ID, NAME, LIST, JSON = 1024, 256, 256, 8192, 65536  # bytes of a text, its end included
CORNERS = 4 * MAX_MODULES

MB = 1e6
NAMED, TYPE = "detector_name", "detector_type"
put_name = stage("CfgDetectorName", NAMED)
N_IMAGES, UDP_PORTS, LOG_N = (1, MAX_N_IMAGES), (1024, 65535), (1, MAX_LOG_N)  # DRVL, DRVH

ANY_LOSS = Limits(hihi=1)
AGE_S = Limits(high=3, hihi=10)
RING_PERCENT = Limits(high=70, hihi=90)  # the warning of counts.FULL begins there too
PEAK_PERCENT = Limits(high=90)
SOCKETS = Limits(high=50, hihi=90)  # per cent of what the kernel grants a UDP port
MAX_PORTS = 2 * MAX_MODULES
FULL_BUFFER = Limits(low=BUFFER_BYTES - 1)
DISK_GB = Limits(low=10, lolo=1)
WRITE_MS = Limits(high=1000, hihi=5000)


def saved(pv: str, value: Source, put: Put, description: str, control: tuple[int, int]) -> Row:
    """Make a setpoint that outlives the service; OutputFile and RunId are one run's, Cfg* the config's."""
    return setting(pv, value, put, description, control, restore=put)


def config_pair(
    pv: str, key: str, description: str, control: tuple[int, int] = (0, 0), put: Put | None = None
) -> tuple[Row, Row]:
    """Make setpoint and readback of a whole number of the config."""
    return (
        setting(pv, lambda v: v.staged[key], put or stage(pv, key), description, control),
        count(f"{pv}_RBV", lambda v: getattr(v.config, key), f"{description}, in use"),
    )


def rate(pv: str, egu: str, precision: int, value: Source, description: str) -> Row:
    return number(pv, egu, precision, value, description, needs_receiver=True)


def loss(pv: str, value: Source, description: str) -> Row:
    return count(pv, value, description, limits=ANY_LOSS, needs_receiver=True)


def gauge(pv: str, egu: str, precision: int, value: Source, description: str, limits: Limits) -> Row:
    return number(pv, egu, precision, value, description, limits=limits, needs_receiver=True)


def counter(pv: str, name: str, description: str) -> Row:
    """Make a counter of the receiver."""
    return number(pv, "", 0, lambda v: getattr(v.counters, name), description, needs_receiver=True)


def trouble(pv: str, name: str, description: str) -> Row:
    """Make a counter of the receiver that should stand still: in alarm while it rises."""
    return replace(counter(pv, name, description), rule=rising(name))


def silence(pv: str, value: Source, description: str) -> Row:
    return text(pv, NAME, value, description, rule=not_empty, needs_receiver=True)


def buffer(pv: str, egu: str, value: Source, description: str) -> Row:
    return number(pv, egu, 0, value, description, limits=FULL_BUFFER, needs_receiver=True)


def log_slot(n: int) -> tuple[Row, ...]:
    """Make the PVs of the n-th newest ended acquisition, FAILED ones too; blank while there are fewer."""

    def run(look: Callable[[Any], Any], blank: Any) -> Source:
        return lambda v: blank if (entry := v.log(n)) is None else look(entry)

    def request(look: Callable[[Any], Any], blank: Any) -> Source:
        return run(lambda entry: blank if entry.request is None else look(entry.request), blank)

    log = f"Log{n}:"
    return (
        text(f"{log}OutputFile_RBV", PATH, request(lambda r: r.output_file, ""), f"File, log entry {n}"),
        enum(f"{log}State_RBV", ENDED, run(lambda a: a.state.value, "NONE"), f"End, log entry {n}"),
        text(f"{log}Message_RBV", PATH, run(lambda a: a.message, ""), f"Message, log entry {n}"),
        count(f"{log}NImages_RBV", request(lambda r: r.n_images, 0), f"Images asked for, log entry {n}"),
        count(f"{log}NWriteCompleted_RBV", run(lambda a: a.n_write_completed, 0), f"Images, log entry {n}"),
        string(f"{log}StopTimeStr_RBV", run(lambda a: iso(a.stop_time), ""), f"End, log entry {n}, UTC"),
        text(f"{log}RunId_RBV", RUN_ID, request(lambda r: r.run_id, ""), f"Run id, log entry {n}"),
    )


STATUS = (
    enum("State_RBV", STATES, lambda v: v.status.state.value, "State of the DAQ", needs_receiver=True),
    enum("AcqState_RBV", RUNNING, lambda v: v.acquisition_state, "State of the run", needs_receiver=True),
    text("AcqMessage_RBV", PATH, lambda v: v.run.message, "How the run ended", rule=is_error),
    count("AcqNImages_RBV", lambda v: v.n_images, "Images the run asked for"),
    text("AcqOutputFile_RBV", PATH, lambda v: v.request.output_file if v.request else "", "File of the run"),
    text("AcqRunId_RBV", RUN_ID, lambda v: v.request.run_id if v.request else "", "Name of the run"),
    count("AcqNWriteCompleted_RBV", lambda v: v.run.n_write_completed, "Images on disk"),
    count("AcqNWriteRequested_RBV", lambda v: v.run.n_write_requested, "Images handed to the writer"),
    number("AcqStartTime_RBV", "s", 6, lambda v: v.run.start_time or 0, "Start, Unix seconds; 0: none"),
    number("AcqStopTime_RBV", "s", 6, lambda v: v.run.stop_time or 0, "End, Unix seconds; 0: none"),
    string("AcqStartTimeStr_RBV", lambda v: iso(v.run.start_time), "Start, UTC"),
    string("AcqStopTimeStr_RBV", lambda v: iso(v.run.stop_time), "End, UTC"),
    number("AcqElapsed_RBV", "s", 3, lambda v: v.elapsed_s, "Duration of the run"),
    number("AcqProgress_RBV", "%", 1, lambda v: v.progress_percent, "Images on disk", display=(0, 100)),
    number("AcqEfficiency_RBV", "", 4, lambda v: v.run.efficiency or 0, "Good images, as a part of all"),
    count("AcqMissing_RBV", lambda v: v.n_images_missing, "Images an ended run lacks", rule=above_zero),
    flag("Busy_RBV", "Ready|Busy", lambda v: v.status.state.value == "WRITING", "A run is going on"),
    text("StatusJson_RBV", JSON, lambda v: v.json(lambda w: w.status(v.status)), "std_daq status as JSON"),
    number("StatusAge_RBV", "s", 1, lambda v: v.age_s, "Age of the status", limits=AGE_S),
)

REQUEST = (
    text("OutputFile", PATH, lambda v: v.next.output_file, "Next file, absolute", Commands.put_output_file),
    text("OutputFile_RBV", PATH, lambda v: v.next.output_file, "Next file"),
    saved("NImages", lambda v: v.next.n_images, Commands.put_n_images, "Next number of images", N_IMAGES),
    count("NImages_RBV", lambda v: v.next.n_images, "Next number of images"),
    text("RunId", RUN_ID, lambda v: v.next.run_id, "Next name; empty: made", Commands.put_run_id),
    text("RunId_RBV", RUN_ID, lambda v: v.next.run_id, "Next name; empty: made"),
)

COMMANDS = (
    command("WriteAsync", "Done|Start", Commands.write_async, "Start a run, done when accepted"),
    command("WriteSync", "Done|Start", Commands.write_sync, "Start a run, done when it ends", "busy"),
    command("Stop", "Done|Stop", Commands.stop, "End the run, done when READY"),
    enum("CmdStatus_RBV", RESULTS, lambda v: v.command.status, "Result of the last command"),
    text("CmdMessage_RBV", PATH, lambda v: v.command.message, "Why the last command was refused"),
    string("CmdName_RBV", lambda v: v.command.name, "Name of the last command"),
    text("CmdUser_RBV", NAME, lambda v: v.command.user, "Who sent the last command, as claimed"),
    count("CmdCount_RBV", lambda v: v.command.accepted, "Commands accepted since start"),
    count("CmdRejected_RBV", lambda v: v.command.rejected, "Commands rejected since start"),
    number("CmdTime_RBV", "s", 3, lambda v: v.command.duration_s, "Duration of the last command"),
)

CONFIG = (
    *config_pair("CfgBitDepth", "bit_depth", "Bits of a pixel", put=Commands.put_bit_depth),
    *config_pair("CfgImagePixelHeight", "image_pixel_height", "Rows of the image"),
    *config_pair("CfgImagePixelWidth", "image_pixel_width", "Columns of the image"),
    *config_pair("CfgWriterUserId", "writer_user_id", "User that owns the files"),
    *for_experts(
        *config_pair("CfgNModules", "n_modules", "Modules of the detector"),
        *config_pair("CfgStartUdpPort", "start_udp_port", "UDP port of module 0", UDP_PORTS),
        text("CfgDetectorName", NAME, lambda v: v.staged[NAMED], "Name of the detector", put_name),
        choice("CfgDetectorType", DETECTORS, lambda v: v.staged[TYPE], Commands.put_type, "Detector"),
        integers(
            "CfgModulePositions", CORNERS, "px", lambda v: v.corners, "Their corners", Commands.put_corners
        ),
        integers(
            "CfgModuleIds", MAX_MODULES, "", lambda v: v.ids, "Modules, in that order", Commands.put_ids
        ),
        text("CfgJson", JSON, lambda v: v.staged_json, "Staged config; a put merges", Commands.put_json),
    ),
    text("CfgDetectorName_RBV", NAME, lambda v: v.config.detector_name, "Name of the detector, in use"),
    enum("CfgDetectorType_RBV", DETECTORS, lambda v: v.config.detector_type, "Detector, in use"),
    integers("CfgModulePositions_RBV", CORNERS, "px", lambda v: v.corners_in_use, "Corners in use"),
    integers("CfgModuleIds_RBV", MAX_MODULES, "", lambda v: v.ids_in_use, "Modules in use"),
    text("CfgJson_RBV", JSON, lambda v: v.config.as_json(), "Config in use, as JSON"),
    command("ConfigApply", "Done|Apply", Commands.apply_config, "Use the staged config", "busy"),
    command("ConfigRevert", "Done|Revert", Commands.revert_config, "Forget the staged config"),
    flag("ConfigPending_RBV", "Clean|Pending:MINOR", lambda v: v.pending, "Something is staged"),
    string("ConfigId_RBV", lambda v: v.snapshot.config_id, "Id of the config in use"),
    enum("DeployStatus_RBV", DEPLOYMENTS, lambda v: v.deployment.status, "How the last config change went"),
    text("DeployMessage_RBV", PATH, lambda v: v.deployment.message, "How the last config change went"),
    string("DeployConfigId_RBV", lambda v: shown(v.deployment.config_id), "Id of the last config change"),
    number("DeployStartTime_RBV", "s", 3, lambda v: v.deployment.start_time or 0, "Its start, Unix seconds"),
    number("DeployStopTime_RBV", "s", 3, lambda v: v.deployment.stop_time or 0, "Its end, Unix seconds"),
    text("DeployServersJson_RBV", LIST, lambda v: v.servers_json, "By server, as JSON"),
)

RATES = (
    rate("DetBytesPerSec_RBV", "B/s", 0, lambda v: v.stats.detector.bytes_per_second, "Data received"),
    rate("DetImagesPerSec_RBV", "Hz", 2, lambda v: v.stats.detector.images_per_second, "Images received"),
    rate("DetMBytesPerSec_RBV", "MB/s", 2, lambda v: v.stats.detector.bytes_per_second / MB, "Data received"),
    rate("WrtBytesPerSec_RBV", "B/s", 0, lambda v: v.stats.writer.bytes_per_second, "Data written"),
    rate("WrtImagesPerSec_RBV", "Hz", 2, lambda v: v.stats.writer.images_per_second, "Images written"),
    rate("WrtMBytesPerSec_RBV", "MB/s", 2, lambda v: v.stats.writer.bytes_per_second / MB, "Data written"),
    text("StatJson_RBV", LIST, lambda v: v.json(lambda w: w.stats(v.stats)), "std_daq stats as JSON"),
)

LOGS = (
    saved("LogN", lambda v: v.next.log_n, Commands.put_log_n, "Entries LogJson lists at most", LOG_N),
    count("LogN_RBV", lambda v: v.next.log_n, "Entries LogJson lists at most"),
    count("LogCount_RBV", lambda v: v.logs_json and v.logs_json[0], "Entries in LogJson_RBV"),
    count("LogTotal_RBV", lambda v: v.snapshot.log_total, "Acquisitions in the journal"),
    text("LogJson_RBV", JSON, lambda v: v.logs_json and v.logs_json[1], "Last acquisitions, newest first"),
    *(row for n in range(1, 6) for row in log_slot(n)),
)

LOSSES = (
    loss("MissingPackets_RBV", lambda v: v.losses.missing_packets, "This run: packets missing in images"),
    loss("IncompleteImages_RBV", lambda v: v.losses.incomplete_images, "This run: images lacking packets"),
    loss("SparseImages_RBV", lambda v: v.losses.sparse_images, "Of them: with less than half"),
    loss("DroppedImages_RBV", lambda v: v.losses.dropped_images, "This run: images lost"),
    loss(
        "MismatchedImages_RBV", lambda v: v.losses.mismatched_images, "This run: modules disagree on the id"
    ),
    loss("OtherFormat_RBV", lambda v: v.losses.other_format_images, "This run: not in the config's format"),
    loss("InvalidPixels_RBV", lambda v: v.losses.invalid_pixels, "This run: pixels without a gain stage"),
    text("Warning_RBV", PATH, lambda v: v.snapshot.health.warning, "Something to look at", rule=warns),
    silence("SilentModules_RBV", lambda v: v.silent_modules, "This run: modules that sent nothing"),
    trouble("KernelDrops_RBV", "kernel_drops", "Datagrams dropped by the kernel"),
    counter("PacketsReceived_RBV", "packets_received", "Packets received"),
    counter("PacketsPlaced_RBV", "packets_placed", "Packets put into an image"),
    trouble("PacketsDuplicate_RBV", "packets_duplicate", "Packets that came twice"),
    trouble("PacketsLate_RBV", "packets_late", "Packets of an image already given up"),
    trouble("PacketsForeign_RBV", "packets_foreign", "Packets of senders not allowed"),
    trouble("PacketsUnplaced_RBV", "packets_dropped", "Since start: the ring was full"),
    counter("IdRestarts_RBV", "id_restarts", "Since start: frame numbers began anew"),
    trouble("PacketsMalformed_RBV", "packets_malformed", "Packets of wrong length or header"),
    counter("TotalMissingPackets_RBV", "missing_packets", "Packets missing in images since start"),
    counter("TotalIncompleteImages_RBV", "incomplete_images", "Images lacking packets since start"),
    counter("TotalDroppedImages_RBV", "dropped_images", "Images lost since start"),
    gauge("RingUsed_RBV", "%", 1, lambda v: v.ring_percent, "Image ring in use", RING_PERCENT),
    gauge("RingHighWater_RBV", "%", 1, lambda v: v.ring_peak_percent, "This run: its peak", PEAK_PERCENT),
    count("RingSlots_RBV", lambda v: v.counters.ring_slots, "Images the ring holds", needs_receiver=True),
    replace(
        integers(
            "KernelDropsByPort_RBV", MAX_PORTS, "", lambda v: v.counters.kernel_drops_by_port, "By port"
        ),
        needs_receiver=True,
    ),
    gauge("SocketUsed_RBV", "%", 1, lambda v: v.counters.socket_used_percent, "Fullest socket", SOCKETS),
    gauge("SocketHighWater_RBV", "%", 1, lambda v: v.counters.socket_peak_percent, "This run: peak", SOCKETS),
    buffer("SocketBuffer_RBV", "byte", lambda v: v.counters.socket_buffer_bytes, "Receive buffer of a port"),
    number("DiskFree_RBV", "GB", 1, lambda v: v.disk_free_gb, "Free where the next run goes", limits=DISK_GB),
    gauge("WriteLatency_RBV", "ms", 1, lambda v: v.write_latency_ms, "Newest image to disk", WRITE_MS),
    string("LastImageId_RBV", lambda v: v.last_image_id, "Newest image, 64 bit", needs_receiver=True),
)

DAQ = (*STATUS, *REQUEST, *COMMANDS, *CONFIG, *RATES, *LOGS, *LOSSES)

PVS: tuple[Row, ...] = (*DAQ, *HEALTH, *ACCESS, *AREA_DETECTOR)
