"""The operators' screen for PyDM: ``daq.ui``, a form of Qt Designer with PyDM's widgets."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from ioc.site.screen import LINE, TEXTS, WIDTH, Kind, Placed, height, placed
from ioc.site.xml_text import to_text

WIDGETS: dict[Kind, str] = {
    "frame": "QFrame",
    "heading": "QLabel",
    "label": "QLabel",
    "value": "PyDMLabel",
    "entry": "PyDMLineEdit",
    "menu": "PyDMEnumComboBox",
    "button": "PyDMPushButton",
    "bar": "PyDMScaleIndicator",
    "light": "PyDMByteIndicator",
}
MODULES = {
    "PyDMLabel": ("QLabel", "pydm.widgets.label"),
    "PyDMLineEdit": ("QLineEdit", "pydm.widgets.line_edit"),
    "PyDMEnumComboBox": ("QWidget", "pydm.widgets.enum_combo_box"),
    "PyDMPushButton": ("QPushButton", "pydm.widgets.pushbutton"),
    "PyDMScaleIndicator": ("QWidget", "pydm.widgets.scale"),
    "PyDMByteIndicator": ("QWidget", "pydm.widgets.byte"),
}
STYLE = """\
#daq { background: #f4f5f7; } #daq QWidget { font-size: 12px; color: #30353c; }
#daq QFrame[frame="true"] { background: #ffffff; border: 1px solid #c9ced6; border-radius: 4px; }
#daq QLabel[heading="true"] { font-size: 15px; font-weight: bold; }
PyDMLabel { background: #eef3f8; border-radius: 3px; padding-left: 4px; }
PyDMLabel[alarmSensitiveContent="true"][alarmSeverity="1"] { background: #fff2b8; color: #7a5200; }
PyDMLabel[alarmSensitiveContent="true"][alarmSeverity="2"] { background: #ffd5d1; color: #a40e0e; }
PyDMLabel[alarmSensitiveContent="true"][alarmSeverity="3"] { background: #f3d6f5; color: #8a138f; }
PyDMLabel[alarmSensitiveContent="true"][alarmSeverity="4"] { background: #e3e5e8; color: #6b7280; }"""
"""Alarms as EPICS screens colour them: 1 MINOR yellow, 2 MAJOR red, 3 INVALID purple; 4, no PV, grey."""


def screen(prefix: str) -> str:
    """Return ``daq.ui``; it takes the macro P: ``pydm -m P=X02DA: daq.ui``, or has the prefix in it."""
    start = "${P}" if prefix == "$(P)" else prefix
    ui = ET.Element("ui", version="4.0")
    ui.append(ET.Comment(" Made from ioc/site/screen.py by `std-daq-ioc db`: change that, not this file. "))
    ET.SubElement(ui, "class").text = "Form"
    form = ET.SubElement(ui, "widget", {"class": "QWidget", "name": "daq"})
    _rectangle(form, 0, 0, WIDTH, height())
    _property(form, "windowTitle", "string", "DAQ")
    _property(form, "styleSheet", "string", STYLE)
    for n, item in enumerate(placed()):
        form.append(_widget(n, item, start))
    custom = ET.SubElement(ui, "customwidgets")
    for name, (extends, header) in MODULES.items():
        widget = ET.SubElement(custom, "customwidget")
        ET.SubElement(widget, "class").text = name
        ET.SubElement(widget, "extends").text = extends
        ET.SubElement(widget, "header").text = header
    return to_text(ui)


def _widget(n: int, item: Placed, start: str) -> ET.Element:
    widget = ET.Element("widget", {"class": WIDGETS[item.kind], "name": f"{item.kind}_{n}"})
    _rectangle(widget, item.x, item.y, item.width, item.height)
    if item.pv:
        _property(widget, "channel", "string", f"ca://{start}{item.pv}", designable=False)
        _property(widget, "toolTip", "string", f"{start}{item.pv}")
    match item.kind:
        case "frame" | "heading":
            _property(widget, item.kind, "bool", "true", designable=False)
            if item.kind == "heading":
                _property(widget, "text", "string", item.text)
        case "label" | "button":
            _property(widget, "text", "string", item.text)
            if item.kind == "button":
                _property(widget, "pressValue", "string", "1", designable=False)
        case "value" | "entry":
            _property(widget, "showUnits", "bool", "true", designable=False)
            _property(widget, "precisionFromPV", "bool", "true", designable=False)
            if item.kind == "value":
                _property(widget, "wordWrap", "bool", str(item.height > LINE).lower())
                _property(widget, "alarmSensitiveContent", "bool", "true", designable=False)
            if item.pv in TEXTS:
                kind = WIDGETS[item.kind]
                _property(widget, "displayFormat", "enum", f"{kind}::String", designable=False)
        case "bar":
            for name, truth in {
                "barIndicator": "true",
                "showValue": "false",
                "showLimits": "false",
                "limitsFromChannel": "true",
            }.items():
                _property(widget, name, "bool", truth, designable=False)
            _colour(widget, "indicatorColor", 46, 125, 90)
            _colour(widget, "backgroundColor", 226, 230, 235)
        case "light":
            _colour(widget, "onColor", 245, 166, 35)
            _colour(widget, "offColor", 200, 205, 212)
            _property(widget, "showLabels", "bool", "false", designable=False)
            _property(widget, "circles", "bool", "true", designable=False)
    return widget


def _rectangle(widget: ET.Element, x: int, y: int, width: int, height: int) -> None:
    rectangle = ET.SubElement(ET.SubElement(widget, "property", name="geometry"), "rect")
    for tag, size in (("x", x), ("y", y), ("width", width), ("height", height)):
        ET.SubElement(rectangle, tag).text = str(size)


def _colour(widget: ET.Element, name: str, red: int, green: int, blue: int) -> None:
    colour = ET.SubElement(ET.SubElement(widget, "property", name=name, stdset="0"), "color")
    for tag, part in (("red", red), ("green", green), ("blue", blue)):
        ET.SubElement(colour, tag).text = str(part)


def _property(widget: ET.Element, name: str, kind: str, text: str, *, designable: bool = True) -> None:
    more = {} if designable else {"stdset": "0"}
    ET.SubElement(ET.SubElement(widget, "property", {"name": name, **more}), kind).text = text
