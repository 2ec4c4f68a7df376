"""The PVs that areaDetector's clients know, one line each: ``cam1:`` for a detector, ``HDF1:`` for its file.

Names, types and states are ADCore's, for clients compare them. The kinds of rows are
in ``ioc.area_rows``, what a put does in ``ioc.area_detector``.
"""

from __future__ import annotations

from dataclasses import replace

from caproto import AlarmSeverity, AlarmStatus

from daq_core.status import MAX_N_IMAGES
from ioc.alarms import NO_ALARM, Alarm, Limits
from ioc.area_detector import AreaDetector
from ioc.area_rows import CAM, HDF, Prefix, choices, fixed, kept, meant, on_area, pixels
from ioc.area_view import (
    data_type,
    detector_state,
    full_file_name,
    num_captured,
    write_failed,
    write_message,
)
from ioc.rows import Row, Source, command, count, enum, flag, number, pair, string, text
from ioc.view import View

YES, ON, ENABLED = "No|Yes", "Off|On", "Disable|Enable"
TYPES = "Int8|UInt8|Int16|UInt16|Int32|UInt32|Int64|UInt64|Float32|Float64"
COLORS = "Mono|Bayer|RGB1|RGB2|RGB3|YUV444|YUV422|YUV421"
MODES = "Single|Multiple|Continuous"
TRIGGERS = "Internal|External"
WRITE_MODES = "Single|Capture|Stream"
CODECS = "None|N-bit|szip|zlib|Blosc|BSLZ4|LZ4|JPEG"  # no other: ophyd-async compares the list
DETECTOR_STATES = (
    "Idle|Acquire|Readout|Correct|Saving|Aborting:MINOR|Error:MAJOR|Waiting|Initializing|"
    "Disconnected:INVALID|Aborted:MINOR"
)
PATH, NAME = 1024, 256  # bytes of a text, its end included
PORT, ADCORE = "DAQ", "3.12.1"  # asyn port that plugins name; version of ADCore whose names these are
FROM_0, DEPTHS = (0, MAX_N_IMAGES), (-32, 32)  # DRVL, DRVH
MBIT = 8e-6  # of a byte
FULL_RING = Limits(low=1)
ANY_LOSS = Limits(hihi=1)


def compression(view: View) -> str:
    """How images are stored, in areaDetector's words, which know bitshuffle with LZ4 alone."""
    return "None" if view.config.compression == "none" else "BSLZ4"


def why_not_there(view: View, value: str) -> Alarm:
    """A folder that no file can be written to; the reason is in AMSG."""
    if value == "Yes":
        return NO_ALARM
    return Alarm(AlarmStatus.STATE, AlarmSeverity.MAJOR_ALARM, view.area.folder_trouble)


def folder_is_there(view: View) -> bool | None:
    return None if view.area.folder is None else not view.area.folder_trouble


def width(v: View) -> int:
    return v.config.image_pixel_width


def height(v: View) -> int:
    return v.config.image_pixel_height


def none(v: View) -> int:
    return 0


def array(macro: Prefix, port: str) -> tuple[Row, ...]:
    """Make the PVs of every asyn port with images (NDArrayBase)."""
    put_counter = on_area(lambda area, value, client: area.put_array_counter(macro, value, client))
    counter = Row("ArrayCounter", "longout", "Images since it was put", counter_put(macro), put_counter)
    return (
        string("PortName_RBV", lambda v: port, "Name of this part", macro=macro),
        string("ADCoreVersion_RBV", lambda v: ADCORE, "Version of the interface", macro=macro),
        string("DriverVersion_RBV", lambda v: v.ioc.version, "Version of the IOC", macro=macro),
        count("UniqueId_RBV", unique_id, "Newest image, 31 bit", macro=macro),
        *pair(replace(counter, macro=macro), value=counted(macro), needs_receiver=True),
        kept(macro, "waveform", "NDAttributesFile", "", "Kept, has no effect", nelm=PATH)[0],
        pixels(macro, "ArraySizeX_RBV", width, "Columns of the image"),
        pixels(macro, "ArraySizeY_RBV", height, "Rows of the image"),
        pixels(macro, "ArraySizeZ_RBV", none, "Not used"),
        pixels(macro, "ArraySize0_RBV", width, "Columns of the image"),
        pixels(macro, "ArraySize0", width, "Columns of the image"),
        pixels(macro, "ArraySize1_RBV", height, "Rows of the image"),
        pixels(macro, "ArraySize1", height, "Rows of the image"),
        pixels(macro, "ArraySize2_RBV", none, "Not used"),
        pixels(macro, "ArraySize2", none, "Not used"),
        count("ArraySize_RBV", lambda v: v.layout.image_bytes, "Of an image", egu="B", macro=macro),
        enum("DataType_RBV", TYPES, data_type, "Type of a pixel", macro=macro),
        enum("ColorMode_RBV", COLORS, lambda v: "Mono", "Always Mono", macro=macro),
        count("NDimensions_RBV", lambda v: 2, "Of an image", macro=macro),
        number("TimeStamp_RBV", "s", 6, image_time, "Newest image, Unix seconds", macro=macro),
    )


def counter_put(macro: Prefix) -> Source:
    return lambda v: v.area.counted_from.get(macro, (0, 0))[0]


def counted(macro: Prefix) -> Source:
    return lambda v: v.area.array_counter(macro)


def unique_id(v: View) -> int | None:
    newest = v.area.newest.newest_id
    return None if newest is None else newest % 2**31


def image_time(v: View) -> float | None:
    return v.area.newest.newest_time


def cam_text(pv: str, value: Source, description: str) -> Row:
    return string(pv, value, description, macro=CAM)


CAMERA = (
    *array(CAM, PORT),
    cam_text("Manufacturer_RBV", lambda v: "std_daq", "What speaks for the detector"),
    cam_text("Model_RBV", lambda v: v.config.detector_type, "Type of the detector"),
    cam_text("SerialNumber_RBV", lambda v: v.config.detector_name, "Name of the detector"),
    cam_text("SDKVersion_RBV", lambda v: v.ioc.version, "Version of receiver and writer"),
    cam_text("FirmwareVersion_RBV", lambda v: "", "Not known"),
    *kept(CAM, "ao", "AcquireTime", 0.001, "Kept: the detector is set elsewhere", egu="s", precision=6),
    *kept(CAM, "ao", "AcquirePeriod", 0.001, "Kept: the detector is set elsewhere", egu="s", precision=6),
    *meant(CAM, "longout", "NumImages", "num_images", "Images that Acquire waits for", control=FROM_0),
    count("NumImagesCounter_RBV", lambda v: v.area.n_acquired, "Images since Acquire", macro=CAM),
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
    fixed(CAM, "mbbo", "DataType", data_type, "By bit_depth", **choices(TYPES))[0],
    fixed(CAM, "mbbo", "ColorMode", lambda v: "Mono", "Always Mono", **choices(COLORS))[0],
    replace(
        number("ArrayRate_RBV", "Hz", 2, lambda v: v.area.passed_per_second, "Images while Acquire is on"),
        macro=CAM,
        needs_receiver=True,
    ),
    *kept(CAM, "bo", "ArrayCallbacks", "Enable", "Kept", **choices(ENABLED)),
)

FILE = (
    *array(HDF, "HDF1"),
    string("PluginType_RBV", lambda v: "NDFileHDF5", "What this is", macro=HDF),
    *fixed(HDF, "stringout", "NDArrayPort", lambda v: PORT, "Always the detector's"),
    *kept(HDF, "longout", "NDArrayAddress", 0, "Kept"),
    *kept(HDF, "bo", "EnableCallbacks", "Enable", "Kept", **choices(ENABLED)),
    *kept(HDF, "bo", "BlockingCallbacks", "No", "Kept", **choices(YES)),
    *kept(HDF, "longout", "QueueSize", 20, "Kept: see DAQ:RingSlots_RBV"),
    count(
        "QueueFree",
        lambda v: v.counters.ring_slots - v.counters.ring_used,
        "Free slots of the image ring",
        limits=FULL_RING,
        needs_receiver=True,
        macro=HDF,
    ),
    *pair(
        fixed(HDF, "longout", "DroppedArrays", lambda v: v.losses.dropped_images, "This run: images lost")[0],
        limits=ANY_LOSS,
    ),
    *meant(HDF, "longout", "CreateDirectory", "create_directory", "-n: make n folders", control=DEPTHS),
    # FilePath_RBV tells a client that FilePathExists_RBV is right: so it comes after it.
    flag("FilePathExists_RBV", "No:MAJOR|Yes", folder_is_there, "Of FilePath", macro=HDF, rule=why_not_there),
    *pair(
        Row(
            "FilePath",
            "waveform",
            "Folder of the next file",
            lambda v: v.area.file_path,
            on_area(AreaDetector.put_file_path),
            on_area(AreaDetector.restore_file_path),
            macro=HDF,
            nelm=PATH,
        ),
        value=lambda v: v.area.folder or "",
    ),
    *meant(
        HDF,
        "waveform",
        "FileName",
        "file_name",
        "Name of the next file",
        put=on_area(AreaDetector.put_file_name),
        nelm=NAME,
    ),
    *meant(HDF, "longout", "FileNumber", "file_number", "Number of the next file", control=FROM_0),
    *meant(HDF, "bo", "AutoIncrement", "auto_increment", "Count FileNumber up", **choices(YES)),
    *meant(
        HDF,
        "waveform",
        "FileTemplate",
        "file_template",
        "C format of path, name, number",
        put=on_area(AreaDetector.put_file_template),
        nelm=NAME,
    ),
    text("FullFileName_RBV", PATH, full_file_name, "File of the run", macro=HDF),
    *kept(HDF, "bo", "AutoSave", "No", "Kept", **choices(YES)),
    *fixed(HDF, "mbbo", "FileFormat", lambda v: "HDF5", "Always HDF5", **choices("HDF5")),
    *kept(HDF, "mbbo", "FileWriteMode", "Stream", "Kept: images are always streamed", **choices(WRITE_MODES)),
    *meant(HDF, "longout", "NumCapture", "num_capture", "Images of a file, 0: until stopped", control=FROM_0),
    count("NumCaptured_RBV", num_captured, "Images on disk", macro=HDF),
    # Capture_RBV comes last: a client that sees it at 1 has seen file name, number and count before.
    command("Capture", "Done|Capture", on_area(AreaDetector.capture), "Write a file", "busy", macro=HDF),
    flag("Capture_RBV", "Done|Capturing:MINOR", lambda v: v.run.running, "A file is open", macro=HDF),
    command(
        "WriteFile", "Done|Write", on_area(AreaDetector.write_file), "Write one image", "busy", macro=HDF
    ),
    flag(
        "WriteFile_RBV",
        "Done|Writing:MINOR",
        lambda v: "WriteFile" in v.command.active,
        "WriteFile",
        macro=HDF,
    ),
    flag("WriteStatus", "Write OK|Write error:MAJOR", write_failed, "How writing went", macro=HDF),
    text("WriteMessage", NAME, write_message, "Why it went so", macro=HDF),
    *kept(HDF, "bo", "LazyOpen", "Yes", "Kept", **choices(YES)),
    *kept(HDF, "bo", "DeleteDriverFile", "No", "Kept", **choices(YES)),
    *fixed(HDF, "stringout", "TempSuffix", lambda v: "", "Always empty"),
    *fixed(HDF, "bo", "SWMRMode", lambda v: "On", "Always On", **choices(ON)),
    flag(
        "SWMRSupported_RBV",
        "Not Supported|Supported",
        lambda v: True,
        "Files can be read as they grow",
        macro=HDF,
    ),
    flag("SWMRActive_RBV", "Off|Active", lambda v: v.run.running, "A growing file can be read", macro=HDF),
    command("FlushNow", "Done|Flush", on_area(AreaDetector.flush), "Wait for the disk", "busy", macro=HDF),
    *fixed(HDF, "mbbo", "Compression", compression, "As configured; BSLZ4: zstd too", **choices(CODECS)),
    *fixed(HDF, "longout", "NumExtraDims", lambda v: 0, "Always 0"),
    *fixed(HDF, "longout", "NumFramesChunks", lambda v: 1, "Images in a chunk: always 1"),
    *kept(HDF, "bo", "ChunkSizeAuto", "Yes", "Kept: a chunk is an image", **choices(YES)),
    *kept(HDF, "longout", "NumFramesFlush", 0, "Kept: flushed as soon as possible"),
    *fixed(HDF, "bo", "PositionMode", lambda v: "Off", "Always Off", **choices(ON)),
    *kept(HDF, "waveform", "XMLFileName", "", "Kept: the layout is fixed", nelm=PATH),
    flag("XMLValid_RBV", YES, lambda v: True, "Nothing is read", macro=HDF),
    text("XMLErrorMsg_RBV", NAME, lambda v: "", "Nothing is read", macro=HDF),
    *kept(HDF, "bo", "StoreAttr", "No", "Kept", **choices(YES)),
    *kept(HDF, "bo", "StorePerform", "No", "Kept", **choices(YES)),
    number("RunTime", "s", 3, lambda v: v.elapsed_s, "Duration of the run", macro=HDF),
    replace(
        number("IOSpeed", "Mbit/s", 1, lambda v: v.stats.writer.bytes_per_second * MBIT, "Data written"),
        macro=HDF,
        needs_receiver=True,
    ),
)

AREA_DETECTOR: tuple[Row, ...] = (*CAMERA, *FILE)
