"""XML as it is committed: indented, UTF-8, with its declaration and a last newline."""

from __future__ import annotations

import xml.etree.ElementTree as ET


def to_text(root: ET.Element) -> str:
    """Return a whole XML document, indented by two spaces."""
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"
