"""The operators' screen for Phoebus: ``daq.bob``, of the display builder."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from ioc.site.screen import TEXTS, WIDTH, Kind, Placed, height, placed
from ioc.site.xml_text import to_text

WIDGETS: dict[Kind, str] = {
    "frame": "rectangle",
    "heading": "label",
    "label": "label",
    "value": "textupdate",
    "entry": "textentry",
    "menu": "combo",
    "button": "action_button",
    "bar": "progressbar",
    "light": "led",
}
DEFAULT, LONG_TEXT = 0, 6
"""Formats of Phoebus: as the PV says, and String, which shows an array of CHAR as text."""


def screen(prefix: str) -> str:
    """Return ``daq.bob``; its macro P is the prefix, which the opener of the screen may give."""
    display = ET.Element("display", version="2.0.0")
    display.append(
        ET.Comment(" Made from ioc/site/screen.py by `std-daq-ioc db`: change that, not this file. ")
    )
    _set(display, name="DAQ", width=WIDTH, height=height(), grid_visible="false")
    macros = ET.SubElement(display, "macros")
    if prefix != "$(P)":
        _set(macros, P=prefix)
    for n, item in enumerate(placed()):
        display.append(_widget(n, item))
    return to_text(display)


def _widget(n: int, item: Placed) -> ET.Element:
    widget = ET.Element(
        "widget", type=WIDGETS[item.kind], version="3.0.0" if item.kind == "button" else "2.0.0"
    )
    name = item.text or item.pv or item.kind
    _set(widget, name=f"{n} {name}", x=item.x, y=item.y, width=item.width, height=item.height)
    if item.pv:
        _set(widget, pv_name=f"$(P){item.pv}")
    match item.kind:
        case "heading":
            _set(widget, text=item.text, vertical_alignment=1)
            font = ET.SubElement(ET.SubElement(widget, "font"), "font")
            font.attrib.update(name="Header 3", family="Liberation Sans", style="BOLD", size="16.0")
        case "label":
            _set(widget, text=item.text, vertical_alignment=1)
        case "value" | "entry":
            _set(widget, format=LONG_TEXT if item.pv in TEXTS else DEFAULT, show_units="true")
        case "bar":
            _set(widget, limits_from_pv="false", minimum=0.0, maximum=100.0)
        case "frame":
            _set(widget, transparent="true", line_width=1)
        case "button":
            _set(widget, text=item.text)
            actions = ET.SubElement(widget, "actions")
            action = ET.SubElement(actions, "action", type="write_pv")
            _set(action, pv_name=f"$(P){item.pv}", value=1, description=item.text)
    return widget


def _set(element: ET.Element, **values: object) -> None:
    for tag, what in values.items():
        ET.SubElement(element, tag).text = str(what)
