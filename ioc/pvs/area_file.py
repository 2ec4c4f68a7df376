"""The PVs of the file writer ``HDF1:``, one line each: ADCore's NDPluginBase, NDFile and NDFileHDF5.

What cannot be otherwise here is fixed: another value is refused. What would act only together
with such a thing (the level of a compression that is not there) is kept without an effect.
"""

from __future__ import annotations

from daq_core.files.direct_io import BLOCK_BYTES
from daq_core.ring.words import MAX_WRITERS
from daq_core.state.status import MAX_N_IMAGES
from ioc.commands.area_detector import AreaDetector
from ioc.pvs.alarms import MAJOR, MINOR, NO_ALARM, Alarm, Limits, Severity, Status
from ioc.pvs.area_array import (
    ENABLED,
    NAME,
    PATH,
    all_slots,
    array,
    free_slots,
    height,
    none,
    ring,
    used_slots,
    width,
)
from ioc.pvs.area_kinds import HDF, choices, declined, fixed, kept, meant, on_area
from ioc.pvs.area_view import num_captured, num_dropped, shown_file_name, write_failed, write_message
from ioc.pvs.row import Row, action, command, count, flag, number, pair, string, text
from ioc.pvs.view import View

YES, ON = "No|Yes", "Off|On"
WRITE_MODES = "Single|Capture|Stream"
CODECS = "None|N-bit|szip|zlib|Blosc|BSLZ4|LZ4|JPEG"  # no other: ophyd-async compares the list
BLOSC = "blosclz|lz4|lz4hc|snappy|zlib|zstd"
SHUFFLES = "None|ByteShuffle|BitShuffle"
SORTING = "Unsorted|Sorted"
DRIVER_PORT = "DAQ"  # asyn port of the detector, which plugins name
FROM_0, DEPTHS = (0, MAX_N_IMAGES), (-32, 32)  # DRVL, DRVH
MBIT = 8e-6  # of a byte
FULL_RING = Limits(low=1)
ANY_LOSS = Limits(hihi=1)
NEARLY_FULL = 0.75  # of the queue, in areaDetector
NO_AGAIN = "An image is written once; there is no plugin that could process it again."
NO_READING = "Files are not read here; read them with h5py or Bluesky."
EXTRA = ("N", "X", "Y", *"3456789")  # extra dimensions, of which a file has none


def compression(view: View) -> str:
    """How images are stored, in areaDetector's words, which know bitshuffle with LZ4 alone."""
    return "None" if view.config.compression == "none" else "BSLZ4"


def why_not_there(view: View, value: str) -> Alarm:
    """A folder that no file can be written to; the reason is in AMSG."""
    if value == "Yes":
        return NO_ALARM
    return Alarm(Status.STATE, Severity.MAJOR, view.area.folder_trouble)


def folder_is_there(view: View) -> bool | None:
    return None if view.area.folder is None else not view.area.folder_trouble


def queue_alarm(view: View, value: float) -> Alarm:
    """Say when the ring is nearly full, and when it is."""
    if value >= all_slots(view) > 0:
        return MAJOR
    return MINOR if value >= NEARLY_FULL * all_slots(view) > 0 else NO_ALARM


def alignment(v: View) -> int:
    """Where chunks begin in the file: at pages where they are written as they are."""
    return BLOCK_BYTES if v.config.compression == "none" else 0


def threshold(v: View) -> int:
    return BLOCK_BYTES if v.config.compression == "none" else 1


def n_writers(v: View) -> int:
    return max(1, v.config.number_of_writers)


def extra(name: str) -> tuple[Row, ...]:
    """Make the PVs of an extra dimension: kept, as long as NumExtraDims is 0."""
    chunk = () if name == "N" else kept(HDF, "longout", f"ExtraDimChunk{name}", 1, "Kept")
    return (
        *kept(HDF, "longout", f"ExtraDimSize{name}", 1, "Kept: NumExtraDims is 0"),
        string(f"ExtraDimName{name}_RBV", lambda v: "", "No such dimension", macro=HDF),
        *chunk,
        *kept(HDF, "stringout", f"PosNameDim{name}", "", "Kept: PositionMode is Off"),
        *kept(HDF, "stringout", f"PosIndexDim{name}", "", "Kept: PositionMode is Off"),
    )


PLUGIN = (
    *kept(HDF, "longout", "QueueSize", 20, "Kept: see DAQ:RingSlots_RBV"),
    ring(HDF, count("QueueFree", free_slots, "Free slots of the image ring"), limits=FULL_RING),
    ring(HDF, number("QueueUse", "", 0, used_slots, "Images in the ring", rule=queue_alarm)),
    number("QueueFreeLow", "", 0, lambda v: FULL_RING.low, "From here down QueueFree is MINOR", macro=HDF),
    ring(
        HDF,
        number("QueueUseHIGH", "", 0, lambda v: NEARLY_FULL * all_slots(v), "QueueUse is MINOR from here"),
    ),
    ring(HDF, number("QueueUseHIHI", "", 0, all_slots, "And MAJOR from here")),
    *fixed(
        HDF, "ao", "MinCallbackTime", lambda v: 0.0, "Always 0: no image is left out", egu="s", precision=3
    ),
    *fixed(HDF, "ao", "MaxArrayRate", lambda v: 0.0, "Always 0: no limit", egu="Hz", precision=2),
    number("MaxArrayRate_COUT", "", 0, lambda v: 0.0, "Always 0: no limit", macro=HDF),
    *fixed(HDF, "ao", "MaxByteRate", lambda v: 0.0, "Always 0: no limit", egu="B/s"),
    number("ExecutionTime_RBV", "ms", 3, lambda v: v.write_latency_ms, "First packet to disk", macro=HDF),
    *fixed(HDF, "longout", "NumThreads", n_writers, "Writers of a run: number_of_writers"),
    count("MaxThreads_RBV", lambda v: MAX_WRITERS, "Most writers of a run", macro=HDF),
    *fixed(HDF, "mbbo", "SortMode", lambda v: "Unsorted", "Images are in order anyway", **choices(SORTING)),
    *kept(HDF, "ao", "SortTime", 0.0, "Kept: SortMode is Unsorted", egu="s", precision=3),
    *kept(HDF, "longout", "SortSize", 0, "Kept: SortMode is Unsorted"),
    count("SortFree", none, "Always 0: SortMode is Unsorted", macro=HDF),
    number("SortFreeLow", "", 0, none, "Always 0: SortMode is Unsorted", macro=HDF),
    *fixed(HDF, "longout", "DisorderedArrays", none, "Always 0: images are in order"),
    *fixed(HDF, "longout", "DroppedOutputArrays", none, "Always 0: nothing comes behind it"),
    action(HDF, "ProcessPlugin", declined("ProcessPlugin", NO_AGAIN), "Refused: an image is written once"),
)

HDF5 = (
    *fixed(HDF, "longout", "NumRowChunks", height, "Rows of a chunk, which is an image"),
    *fixed(HDF, "longout", "NumColChunks", width, "Columns of a chunk, which is an image"),
    *fixed(HDF, "longout", "BoundaryAlign", alignment, "Where chunks begin in a file", egu="bytes"),
    *fixed(HDF, "longout", "BoundaryThreshold", threshold, "Of what is so large", egu="bytes"),
    *kept(HDF, "longout", "NDAttributeChunk", 0, "Kept: no attributes are stored"),
    *fixed(HDF, "ao", "FillValue", lambda v: 0.0, "Of pixels that did not come", precision=0),
    *fixed(HDF, "bo", "DimAttDatasets", lambda v: "No", "Always No", **choices(YES)),
    count("SWMRCbCounter_RBV", lambda v: None, "Not known", macro=HDF),
    *kept(HDF, "longout", "NumDataBits", 8, "Kept: of N-bit alone", egu="bit"),
    *kept(HDF, "longout", "DataBitsOffset", 0, "Kept: of N-bit alone", egu="bit"),
    *kept(HDF, "longout", "SZipNumPixels", 16, "Kept: of szip alone", egu="bit"),
    *kept(HDF, "longout", "ZLevel", 6, "Kept: of zlib alone"),
    *kept(HDF, "mbbo", "BloscCompressor", "blosclz", "Kept: of Blosc alone", **choices(BLOSC)),
    *kept(HDF, "mbbo", "BloscShuffle", "None", "Kept: of Blosc alone", **choices(SHUFFLES)),
    *kept(HDF, "longout", "BloscLevel", 0, "Kept: of Blosc alone"),
    *(row for name in EXTRA for row in extra(name)),
    count("FileNumber_Sync", lambda v: v.area.file_number, "As FileNumber", macro=HDF),
    count("FileNumber_write", lambda v: v.area.file_number, "As FileNumber", macro=HDF),
    command("ReadFile", "Done|Read", declined("ReadFile", NO_READING), "Refused", "busy", macro=HDF),
    flag("ReadFile_RBV", "Done|Reading:MINOR", lambda v: False, "Always Done", macro=HDF),
)

FILE = (
    *array(HDF, "HDF1"),
    string("PluginType_RBV", lambda v: "NDFileHDF5", "What this is", macro=HDF),
    *fixed(HDF, "stringout", "NDArrayPort", lambda v: DRIVER_PORT, "Always the detector's"),
    *kept(HDF, "longout", "NDArrayAddress", 0, "Kept"),
    *kept(HDF, "bo", "EnableCallbacks", "Enable", "Kept", **choices(ENABLED)),
    *kept(HDF, "bo", "BlockingCallbacks", "No", "Kept", **choices(YES)),
    *PLUGIN,
    *pair(
        fixed(HDF, "longout", "DroppedArrays", num_dropped, "This run: images lost")[0],
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
    text("FullFileName_RBV", PATH, shown_file_name, "File of the run", macro=HDF),
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
    ring(
        HDF,
        number("IOSpeed", "Mbit/s", 1, lambda v: v.stats.writer.bytes_per_second * MBIT, "Data written"),
    ),
    *HDF5,
)
