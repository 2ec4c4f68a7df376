"""An access security file to start from: ``daq.acf``, for this IOC and for a C IOC with ``daq.template``."""

from __future__ import annotations

import textwrap

from ioc.access.rules import AccessGroup
from ioc.pvs.daq import PVS
from ioc.pvs.row import MACROS

HEAD = """\
# Made from ioc/pvs/ by `std-daq-ioc db`: copy it, and change the copy.
#
# Who may read and put what by Channel Access, for `std-daq-ioc serve --acf FILE`. After an
# edit put 1 to {readacf}: clients are told at once what they may do from then on.
# A C IOC reads the same file: asSetFilename("daq.acf"), with `var asCheckClientIP 1`.
#
# A user is what a client claims to be. A host is the address its connection comes from.

# The users of your site.
UAG(operators) {{operator}}
UAG(experts) {{expert}}

# The machines they sit at, by name or IPv4 address.
HAG(consoles) {{localhost}}

# Whatever is in none of the groups below.
ASG(DEFAULT) {{
    RULE(1, READ)
}}
"""

GROUPS: dict[AccessGroup, tuple[str, str]] = {
    "RO": ("what can only be read", ""),
    "RW": ("setpoints of a run, and of its detector", "operators, experts"),
    "CMD": ("commands", "operators, experts"),
    "ADM": ("what can make the detector unusable, and the service itself", "experts"),
}
"""What the groups are, and who may put in the example."""

LISTED = ("CMD", "ADM")
"""Groups whose PVs are named: of the others there are too many."""


def access_file(prefix: str) -> str:
    """Return ``daq.acf``; the prefix is in its comments alone."""
    readacf = f"{prefix}{MACROS['IOC']}READACF"
    return HEAD.format(readacf=readacf) + "".join(map(_group, GROUPS))


def _group(group: AccessGroup) -> str:
    meaning, users = GROUPS[group]
    names = [row.pv("") for row in PVS if row.access == group]
    what = f"{meaning}: {', '.join(names)}." if group in LISTED else f"{meaning}: {len(names)} PVs."
    comment = textwrap.fill(
        what[0].upper() + what[1:], 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
    rules = "    RULE(1, READ)\n"
    if users:
        rules += f"    RULE(1, WRITE, TRAPWRITE) {{\n        UAG({users})\n        HAG(consoles)\n    }}\n"
    return f"\n{comment}\nASG({group}) {{\n{rules}}}\n"
