"""The files that are made from the PV table, by name.

``std-daq-ioc db`` writes them all; a test compares what is committed with what the
table gives. A file more is a function of the prefix, and one more line of ``FILES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ioc.site import access_file, operations, phoebus, pydm, template

FILES: Mapping[str, Callable[[str], str]] = {
    "daq.template": template.template,
    "daq.substitutions": template.substitutions,
    "daq.acf": access_file.access_file,
    "daq_settings.req": operations.settings,
    "archive.txt": operations.archive,
    "alarm.xml": operations.alarms,
    "pvlist": operations.pvlist,
    "daq.bob": phoebus.screen,
    "daq.ui": pydm.screen,
}
"""What makes each file of ``db/``: a function of the prefix."""
