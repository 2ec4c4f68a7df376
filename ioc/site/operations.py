"""What a site's services are told of the PVs: archiver, alarm server, save/restore, CA gateway.

Names begin with the prefix they are made for. Without one they begin with ``$(P)``,
which the save/restore of a C IOC expands, and which `std-daq-ioc db --prefix` replaces
for the services that know no macros.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from ioc.pvs.alarms import NO_LIMITS
from ioc.pvs.daq import PVS
from ioc.pvs.row import MACROS, Row
from ioc.service.autosave import SETTINGS
from ioc.site.xml_text import to_text

MADE = "Made from ioc/pvs/ by `std-daq-ioc db`: change the table, not this file."

ARCHIVED_TEXT_BYTES = 1024
"""Longer arrays are the JSON texts and the module tables, which the archiver would store whole each time."""

SCAN_S, MONITOR_S = 10, 1
AREAS = {"R": "DAQ", "IOC": "IOC", "CAM": "cam1", "HDF": "HDF1"}
"""Names of the branches of the alarm tree."""

LATCHED = ("AcqState_RBV", "MissingPackets_RBV", "IncompleteImages_RBV", "DroppedImages_RBV")
"""Alarms that somebody should have seen, although the next run clears them."""

AT_WORK = ("Acquire_RBV", "Capture_RBV", "WriteFile_RBV", "FilePathExists_RBV")
"""Readbacks with a severity, for areaDetector's have one, that tell of work and setpoints, not of trouble."""


def archive(prefix: str) -> str:
    """Return ``archive.txt``: PV, sampling period in seconds, method; one line a PV.

    What moves all the time (rates, counters, health) is scanned, what tells of an
    event is monitored. Setpoints, commands, JSON texts and arrays are left out.
    """
    lines = [f"# {MADE}\n", "# PV, period in seconds, method (Archiver Appliance)\n"]
    for row in PVS:
        if archived(row):
            period, method = (SCAN_S, "SCAN") if _moves(row) else (MONITOR_S, "MONITOR")
            lines.append(f"{row.pv(prefix)}\t{period}\t{method}\n")
    return "".join(lines)


def archived(row: Row) -> bool:
    """Tell whether a PV is worth its history: a readback of DAQ or IOC that is no long text."""
    if row.put is not None or row.macro not in ("R", "IOC") or row.name.startswith("Log"):
        return False
    if row.record == "waveform":
        return row.ftvl == "CHAR" and row.nelm <= ARCHIVED_TEXT_BYTES
    return row.name not in ("UPTIME", "TOD")


def _moves(row: Row) -> bool:
    return row.record == "ai" and row.rule is None and not row.name.endswith("Time_RBV")


def alarms(prefix: str) -> str:
    """Return ``alarm.xml`` for the import of Phoebus' alarm server: a component a name part."""
    config = ET.Element("config", name="DAQ")
    config.append(ET.Comment(f" {MADE} "))
    for macro, area in AREAS.items():
        watched = [row for row in PVS if row.macro == macro and has_alarm(row)]
        if not watched:
            continue
        component = ET.SubElement(config, "component", name=area)
        for row in watched:
            pv = ET.SubElement(component, "pv", name=row.pv(prefix))
            ET.SubElement(pv, "description").text = row.description
            ET.SubElement(pv, "enabled").text = "true"
            ET.SubElement(pv, "latching").text = "true" if row.name in LATCHED else "false"
            ET.SubElement(pv, "annunciating").text = "false"
    return to_text(config)


def has_alarm(row: Row) -> bool:
    """Tell whether a readback has an alarm of its own, beyond the INVALID of a receiver that is down."""
    if row.put is not None or row.name in AT_WORK or re.fullmatch(r"Log\d:.*", row.name):
        return False
    return row.limits != NO_LIMITS or row.rule is not None or any(row.severities)


def settings(prefix: str) -> str:
    """Return ``daq_settings.req``: the setpoints that are saved and restored, never a command."""
    names = [f"{prefix}$({row.macro}={MACROS[row.macro]}){row.name}\n" for row in SETTINGS]
    return f"# {MADE}\n# Commands are not in it: a restore must not start a run.\n" + "".join(names)


PVLIST_HEAD = f"""\
# {MADE}
#
# For the CA gateway: gateway -pvlist pvlist -access FILE. All of it may be seen;
# what may be put is the business of group DEFAULT in the gateway's access file.
EVALUATION ORDER ALLOW, DENY
"""


def pvlist(prefix: str) -> str:
    """Return the gateway's ``pvlist``: a pattern for each name part; no other PV passes."""
    start = re.escape(prefix) if prefix != "$(P)" else prefix
    lines = [f"{start}{re.escape(part)}.*    ALLOW\n" for part in MACROS.values()]
    return PVLIST_HEAD + "".join(lines)
