"""Names of files as areaDetector makes them: FilePath, FileName and FileNumber through FileTemplate.

FileTemplate is a C printf format of (path, name, number); what is allowed of it
is what cannot harm: these three in this order, with flags, width and precision.
"""

from __future__ import annotations

import os
import re

from daq_core.errors import InvalidRequest
from daq_core.state.status import checked_output_file

CONVERSION = re.compile(r"%([-+ 0]*)(\d{0,3})(\.\d{0,3})?([%sdiu])")
ARGUMENTS = (("s", "the path"), ("s", "the name"), ("diu", "the number"))


def checked_folder(path: str) -> str:
    """Return a legal folder with its last slash, as ADCore shows it; InvalidRequest says what is wrong."""
    folder = os.path.join(path, "")
    try:
        checked_output_file(folder + "x")
    except InvalidRequest:
        raise InvalidRequest(
            f"Invalid FilePath={path!r}. It must be absolute, without '..' and control characters, "
            "and have 255 bytes in each part, 1022 in all, at most."
        ) from None
    return folder


def checked_name(name: str) -> str:
    """Return a FileName that can be part of a path."""
    try:
        checked_output_file(f"/{name}/x")
        checked_output_file(f"/{name}x")
    except InvalidRequest:
        raise InvalidRequest(
            f"Invalid FileName={name!r}. It must have 255 bytes at most, and no '..' or control character."
        ) from None
    return name


def checked_template(template: str) -> str:
    """Return a FileTemplate that can be used; InvalidRequest says what is wrong with it."""
    conversions = [match for match in CONVERSION.finditer(template) if match[4] != "%"]
    if "%" in CONVERSION.sub("", template) or len(conversions) > len(ARGUMENTS):
        raise InvalidRequest(
            f"Invalid FileTemplate={template!r}. It may have %s for the path, %s for the name and %d for "
            "the number, e.g. %s%s_%6.6d.h5."
        )
    for conversion, (kinds, what) in zip(conversions, ARGUMENTS, strict=False):
        if conversion[4] not in kinds:
            raise InvalidRequest(
                f"Invalid FileTemplate={template!r}. {conversion[0]} stands where {what} "
                f"(%{kinds[0]}) belongs."
            )
    return template


def full_file_name(template: str, folder: str, name: str, number: int) -> str:
    """Return the path that a template makes; InvalidRequest where it is no legal output file."""
    arguments = iter((folder, name, number))

    def converted(match: re.Match[str]) -> str:
        if match[4] == "%":
            return "%"
        return f"%{match[1]}{match[2]}{match[3] or ''}{match[4]}" % next(arguments)

    return checked_output_file(CONVERSION.sub(converted, checked_template(template)))
