"""What is where on the operators' screen: one table, of which ``daq.bob`` and ``daq.ui`` are made.

A panel is a titled box of lines; a line is a label and what follows it, side by side.
``placed()`` gives every item its rectangle, so the two screens look alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ioc.pvs.daq import PVS

Kind = Literal["frame", "heading", "label", "value", "entry", "menu", "button", "bar", "light"]

LINE, GAP, MARGIN, TITLE = (
    26,
    6,
    10,
    30,
)  # px: height of a line, space between items, around boxes, of a title
LABEL_WIDTH = 130
COLUMN_WIDTH = 580
TEXTS = frozenset(row.pv("") for row in PVS if row.record == "waveform" and row.ftvl == "CHAR")
"""PVs that are arrays of CHAR, which a screen has to be told to show as text."""
WIDTH = 2 * COLUMN_WIDTH + 3 * MARGIN


@dataclass(frozen=True)
class Item:
    """One thing on the screen; `pv` is behind the prefix, `share` its part of the line's width."""

    kind: Kind
    pv: str = ""
    text: str = ""
    share: float = 1


@dataclass(frozen=True)
class Line:
    label: str
    items: tuple[Item, ...]
    n_rows: int = 1  # of text, where it is wrapped

    @property
    def height(self) -> int:
        return self.n_rows * (LINE + GAP) - GAP


@dataclass(frozen=True)
class Panel:
    title: str
    column: Literal["left", "right", "both"]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Placed:
    """An item and its rectangle in pixels, from the upper left corner of the screen."""

    kind: Kind
    pv: str
    text: str
    x: int
    y: int
    width: int
    height: int


def value(pv: str, share: float = 1) -> Item:
    return Item("value", pv, share=share)


def entry(pv: str, share: float = 1) -> Item:
    return Item("entry", pv, share=share)


def button(pv: str, text: str) -> Item:
    return Item("button", pv, text)


def label(text: str, share: float = 1) -> Item:
    return Item("label", text=text, share=share)


def line(text: str, *items: Item, n_rows: int = 1) -> Line:
    return Line(text, items, n_rows)


def config(text: str, pv: str) -> Line:
    """Make the line of a config key: what is staged, and what is in use."""
    return line(text, entry(f"DAQ:{pv}"), value(f"DAQ:{pv}_RBV"))


LOG_SHARES = (1.5, 0.9, 0.6, 0.6, 3.2, 2.6)
LOG_COLUMNS = ("End (UTC)", "State", "Written", "Asked", "File", "Message")
LOG_PVS = ("StopTimeStr", "State", "NWriteCompleted", "NImages", "OutputFile", "Message")


def log_line(n: int) -> Line:
    """Make the line of the n-th newest run."""
    pairs = zip(LOG_PVS, LOG_SHARES, strict=True)
    return Line("", tuple(value(f"DAQ:Log{n}:{pv}_RBV", share) for pv, share in pairs))


PANELS = (
    Panel(
        "State",
        "left",
        (
            line("DAQ", value("DAQ:State_RBV"), value("DAQ:AcqState_RBV", 1.6)),
            line("Progress", Item("bar", "DAQ:AcqProgress_RBV")),
            line(
                "Images", value("DAQ:AcqNWriteCompleted_RBV"), label("of", 0.2), value("DAQ:AcqNImages_RBV")
            ),
            line("Duration", value("DAQ:AcqElapsed_RBV"), label("", 0.2), value("DAQ:AcqStartTimeStr_RBV")),
            line("File", value("DAQ:AcqOutputFile_RBV")),
            line("Run id", value("DAQ:AcqRunId_RBV")),
            line("Message", value("DAQ:AcqMessage_RBV"), n_rows=2),
        ),
    ),
    Panel(
        "Next run",
        "left",
        (
            line("File", entry("DAQ:OutputFile")),
            line("Images", entry("DAQ:NImages")),
            line("Run id", entry("DAQ:RunId")),
            line("", button("DAQ:WriteAsync", "Start"), button("DAQ:Stop", "Stop")),
            line("Last command", value("DAQ:CmdName_RBV"), value("DAQ:CmdStatus_RBV")),
            line("", value("DAQ:CmdMessage_RBV"), n_rows=2),
        ),
    ),
    Panel(
        "Rates",
        "left",
        (
            line("", label("Images"), label("Data")),
            line("Detector", value("DAQ:DetImagesPerSec_RBV"), value("DAQ:DetMBytesPerSec_RBV")),
            line("Writer", value("DAQ:WrtImagesPerSec_RBV"), value("DAQ:WrtMBytesPerSec_RBV")),
            line("Ring: now, peak", value("DAQ:RingUsed_RBV"), value("DAQ:RingHighWater_RBV")),
            line("Disk: free, latency", value("DAQ:DiskFree_RBV"), value("DAQ:WriteLatency_RBV")),
            line("Newest image", value("DAQ:LastImageId_RBV")),
            line("Packets: all, bad", value("DAQ:PacketsReceived_RBV"), value("DAQ:PacketsMalformed_RBV")),
        ),
    ),
    Panel(
        "Losses of this run",
        "right",
        (
            line(
                "Images lost",
                value("DAQ:DroppedImages_RBV"),
                label("incomplete"),
                value("DAQ:IncompleteImages_RBV"),
            ),
            line(
                "Packets missing",
                value("DAQ:MissingPackets_RBV"),
                label("kernel drops"),
                value("DAQ:KernelDrops_RBV"),
            ),
            line(
                "Ids disagree",
                value("DAQ:MismatchedImages_RBV"),
                label("late packets"),
                value("DAQ:PacketsLate_RBV"),
            ),
            line(
                "Other format",
                value("DAQ:OtherFormat_RBV"),
                label("mostly empty"),
                value("DAQ:SparseImages_RBV"),
            ),
            line("Silent modules", value("DAQ:SilentModules_RBV")),
            line("Warning", value("DAQ:Warning_RBV")),
        ),
    ),
    Panel(
        "Config",
        "right",
        (
            line("", label("staged"), label("in use")),
            line("Detector", Item("menu", "DAQ:CfgDetectorType"), value("DAQ:CfgDetectorType_RBV")),
            config("Name", "CfgDetectorName"),
            config("Bits of a pixel", "CfgBitDepth"),
            config("Height", "CfgImagePixelHeight"),
            config("Width", "CfgImagePixelWidth"),
            config("Modules", "CfgNModules"),
            config("First UDP port", "CfgStartUdpPort"),
            config("User id of files", "CfgWriterUserId"),
            line("", button("DAQ:ConfigApply", "Apply"), button("DAQ:ConfigRevert", "Revert")),
            line(
                "Staged",
                Item("light", "DAQ:ConfigPending_RBV", share=0.1),
                value("DAQ:ConfigPending_RBV"),
                value("DAQ:DeployStatus_RBV"),
            ),
        ),
    ),
    Panel(
        "IOC",
        "right",
        (
            line("Version", value("IOC:VERSION"), label("up since", 0.8), value("IOC:STARTTOD", 1.7)),
            line("Heartbeat", value("IOC:HEARTBEAT"), label("clients", 0.8), value("IOC:CA_CLNT_CNT", 1.7)),
            line(
                "Redis",
                value("IOC:RedisConnected_RBV"),
                label("loop lag", 0.8),
                value("IOC:LoopLag_RBV", 1.7),
            ),
            line(
                "CPU of the IOC",
                value("IOC:IOC_CPU_LOAD"),
                label("stalled", 0.8),
                value("IOC:CaStalled_RBV", 1.7),
            ),
            line("Autosave", value("IOC:SR_status"), label("last save", 0.8), value("IOC:SR_lastSave", 1.7)),
            line("Errors", value("IOC:Errors_RBV", 0.4), value("IOC:LastError_RBV", 1.6)),
        ),
    ),
    Panel(
        "Last runs",
        "both",
        (
            Line("", tuple(label(text, share) for text, share in zip(LOG_COLUMNS, LOG_SHARES, strict=True))),
            *(log_line(n) for n in range(1, 6)),
        ),
    ),
)


def placed() -> list[Placed]:
    """Return everything on the screen with its rectangle, panels before what is in them."""
    bottom = {"left": MARGIN, "right": MARGIN}
    items = []
    for panel in PANELS:
        columns = ("left", "right") if panel.column == "both" else (panel.column,)
        x = MARGIN if columns[0] == "left" else COLUMN_WIDTH + 2 * MARGIN
        y = max(bottom[column] for column in columns)
        width = COLUMN_WIDTH if len(columns) == 1 else WIDTH - 2 * MARGIN
        height = TITLE + sum(each.height + GAP for each in panel.lines) + GAP
        items += [Placed("frame", "", "", x, y, width, height)]
        items += [Placed("heading", "", panel.title, x + GAP, y + 2, width - 2 * GAP, TITLE - 4)]
        top = y + TITLE
        for each in panel.lines:
            items += _on_line(panel, each, x + MARGIN, top, width - 2 * MARGIN)
            top += each.height + GAP
        bottom |= dict.fromkeys(columns, y + height + MARGIN)
    return items


def height() -> int:
    """Return the height of the screen in pixels."""
    return max(item.y + item.height for item in placed()) + MARGIN


def _on_line(panel: Panel, each: Line, x: int, y: int, width: int) -> Iterator[Placed]:
    if panel.column != "both":  # the wide panel is a table without labels of its lines
        yield Placed("label", "", each.label, x, y, LABEL_WIDTH, LINE)
        x, width = x + LABEL_WIDTH + GAP, width - LABEL_WIDTH - GAP
    unit = (width - GAP * (len(each.items) - 1)) / sum(item.share for item in each.items)
    left = float(x)
    for item in each.items:
        yield Placed(item.kind, item.pv, item.text, round(left), y, round(unit * item.share), each.height)
        left += unit * item.share + GAP
