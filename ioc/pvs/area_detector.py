"""The PVs that areaDetector's clients know, one line each: ``cam1:`` for a detector, ``HDF1:`` for its file.

Here is the detector, ADCore's ADBase; the file is in ``ioc.pvs.area_file``, and what both have of
their images in ``ioc.pvs.area_array``. Names, types and states are ADCore's, for clients compare
them. The kinds of rows are in ``ioc.pvs.area_kinds``, what a put does in ``ioc.commands.area_detector``.
"""

from __future__ import annotations

from dataclasses import replace

from daq_core.state.status import MAX_N_IMAGES
from ioc.commands.area_detector import AreaDetector
from ioc.pvs.area_array import NAME, array, height, none, width
from ioc.pvs.area_file import DRIVER_PORT, FILE, YES
from ioc.pvs.area_kinds import CAM, choices, declined, fixed, kept, meant, on_area, pixels
from ioc.pvs.area_view import detector_state, num_acquired, time_remaining
from ioc.pvs.row import Row, Source, action, command, count, enum, flag, number, pair, string, text

MODES = "Single|Multiple|Continuous"
TRIGGERS = "Internal|External"
FRAMES = "Normal|Background|FlatField|DblCorrelation"
SHUTTERS = "None|EPICS PV|Detector output"
SHUTTERS_RBV = "None|EPICS PV|Camera output"  # in ADCore they differ
NO_TRIGGER = "This DAQ triggers nothing: the detector does."
DETECTOR_STATES = (
    "Idle|Acquire|Readout|Correct|Saving|Aborting:MINOR|Error:MAJOR|Waiting|Initializing|"
    "Disconnected:INVALID|Aborted:MINOR"
)
FROM_0 = (0, MAX_N_IMAGES)  # DRVL, DRVH


def cam_text(pv: str, value: Source, description: str) -> Row:
    return string(pv, value, description, macro=CAM)


SHUTTER = (
    *pair(
        fixed(CAM, "mbbo", "ShutterMode", lambda v: "None", "Always None", **choices(SHUTTERS))[0],
        **choices(SHUTTERS_RBV),
    ),
    *fixed(CAM, "bo", "ShutterControl", lambda v: "Close", "There is none", **choices("Close|Open")),
    flag("ShutterStatus_RBV", "Closed|Open:MINOR", lambda v: None, "Not known", macro=CAM),
    *kept(CAM, "ao", "ShutterOpenDelay", 0.0, "Kept: there is no shutter", precision=3),
    *kept(CAM, "ao", "ShutterCloseDelay", 0.0, "Kept: there is no shutter", precision=3),
    flag("ShutterControlEPICS", "Closed|Open:MINOR", lambda v: None, "Not known", macro=CAM),
    count("ShutterFanout", none, "Always 0: there is no shutter", macro=CAM),
    number("ShutterOpenEPICS", "", 0, none, "Always 0: there is no shutter", macro=CAM),
    number("ShutterCloseEPICS", "", 0, none, "Always 0: there is no shutter", macro=CAM),
    replace(
        flag("ShutterStatusEPICS_RBV", "Closed|Open:MINOR", lambda v: None, "Not known", macro=CAM),
        record="mbbi",
    ),
)

CAMERA = (
    *array(CAM, DRIVER_PORT),
    cam_text("Manufacturer_RBV", lambda v: "std_daq", "What speaks for the detector"),
    cam_text("Model_RBV", lambda v: v.config.detector_type, "Type of the detector"),
    cam_text("SerialNumber_RBV", lambda v: v.config.detector_name, "Name of the detector"),
    cam_text("SDKVersion_RBV", lambda v: v.ioc.version, "Version of receiver and writer"),
    cam_text("FirmwareVersion_RBV", lambda v: "", "Not known"),
    *kept(CAM, "ao", "AcquireTime", 0.001, "Kept: the detector is set elsewhere", egu="s", precision=6),
    *kept(CAM, "ao", "AcquirePeriod", 0.001, "Kept: the detector is set elsewhere", egu="s", precision=6),
    *meant(CAM, "longout", "NumImages", "num_images", "Images that Acquire waits for", control=FROM_0),
    count("NumImagesCounter_RBV", num_acquired, "Images since Acquire", macro=CAM),
    *kept(CAM, "longout", "NumExposures", 1, "Kept: the detector is set elsewhere"),
    *meant(CAM, "mbbo", "ImageMode", "image_mode", "What ends an Acquire", **choices(MODES)),
    *kept(CAM, "mbbo", "TriggerMode", "External", "Kept", **choices(TRIGGERS)),
    enum(
        "DetectorState_RBV", DETECTOR_STATES, detector_state, "Of the Acquire, or else of the run", macro=CAM
    ),
    command("Acquire", "Done|Acquire", on_area(AreaDetector.acquire), "Wait for images", "busy", macro=CAM),
    replace(
        command(
            "Acquire", "Done|Acquiring:MINOR", on_area(AreaDetector.acquire), "As Acquire", "busy", macro=CAM
        ),
        name="AcquireBusy",
    ),
    flag(
        "Acquire_RBV", "Done|Acquiring:MINOR", lambda v: "Acquire" in v.command.active, "Acquiring", macro=CAM
    ),
    meant(CAM, "bo", "WaitForPlugins", "wait_for_plugins", "Acquire ends when flushed", **choices(YES))[0],
    text("StatusMessage_RBV", NAME, lambda v: v.run.message, "How the run stands", macro=CAM),
    pixels(CAM, "MaxSizeX_RBV", width, "Columns of the detector"),
    pixels(CAM, "MaxSizeY_RBV", height, "Rows of the detector"),
    *fixed(CAM, "longout", "MinX", lambda v: 0, "Always 0"),
    *fixed(CAM, "longout", "MinY", lambda v: 0, "Always 0"),
    *fixed(CAM, "longout", "SizeX", width, "Columns of the image"),
    *fixed(CAM, "longout", "SizeY", height, "Rows of the image"),
    *fixed(CAM, "longout", "BinX", lambda v: 1, "Always 1"),
    *fixed(CAM, "longout", "BinY", lambda v: 1, "Always 1"),
    *fixed(CAM, "bo", "ReverseX", lambda v: "No", "Always No", **choices(YES)),
    *fixed(CAM, "bo", "ReverseY", lambda v: "No", "Always No", **choices(YES)),
    number("TimeRemaining_RBV", "", 3, time_remaining, "Of the Acquire, at the present rate", macro=CAM),
    *kept(CAM, "ao", "Gain", None, "Kept: the detector is set elsewhere", precision=3),
    *fixed(CAM, "mbbo", "FrameType", lambda v: "Normal", "Always Normal", **choices(FRAMES)),
    count("NumExposuresCounter_RBV", num_acquired, "As NumImagesCounter_RBV", macro=CAM),
    *kept(CAM, "ao", "Temperature", None, "Kept: the detector is set elsewhere", egu="C", precision=1),
    number("TemperatureActual", "C", 1, lambda v: None, "Not known", macro=CAM),
    text("StringToServer_RBV", NAME, lambda v: "", "Always empty", macro=CAM),
    text("StringFromServer_RBV", NAME, lambda v: "", "Always empty", macro=CAM),
    action(CAM, "ReadStatus", on_area(AreaDetector.have_no_effect), "No effect: PVs are up to date"),
    action(CAM, "TriggerSoftware", declined("TriggerSoftware", NO_TRIGGER), "Refused: nothing is triggered"),
    *SHUTTER,
)

AREA_DETECTOR: tuple[Row, ...] = (*CAMERA, *FILE)
