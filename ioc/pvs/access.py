"""The PVs of access by Channel Access, one line each: the rules in force, and how they are read again."""

from __future__ import annotations

from ioc.commands.commands import Commands
from ioc.pvs.row import command, flag, for_experts

ACCESS = (
    *for_experts(
        command("READACF", "No|Reload", Commands.reload_access, "Read the access file again", macro="IOC")
    ),
    flag(
        "ReadOnly_RBV", "No|Yes:MINOR", lambda v: v.access.read_only, "Nobody may put commands", macro="IOC"
    ),
    flag(
        "ACCESS",
        "Running|Maintenance:MINOR",
        lambda v: v.access.maintenance,
        "Maintenance: commands for nobody",
        macro="IOC",
    ),
)
