"""Who may read and put what by Channel Access: groups of PVs, and rules that grant something to clients.

A PV is in one group (its field ASG), a field has a level: 0 the value, 1 all others. A
rule grants READ or WRITE up to its level to users, from hosts; the most that any rule
of the group grants is what a client may do. A group that has no rules of its own has
those of DEFAULT. Source: EPICS Application Developer's Guide, "Access Security", and
``asComputePvt`` in EPICS Base, which a test compares with this.

A user is what a client claims to be. A host is the address its connection comes from.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple

from daq_core.linux.network import is_loopback
from ioc.access.own_addresses import own_addresses

VALUE_LEVEL, FIELD_LEVEL = 0, 1
"""Access security level of a record's VAL, and of its other fields, for all record types served here."""

AccessGroup = Literal["RO", "RW", "CMD", "ADM"]
ACCESS_GROUPS: tuple[AccessGroup, ...] = ("RO", "RW", "CMD", "ADM")
"""Groups of the PVs here: what can only be read, setpoints, commands, and what is for experts."""

DEFAULT = "DEFAULT"
"""The group whose rules hold for PVs of groups that have none."""


class Grant(IntEnum):
    """What a rule grants; each includes those before."""

    NONE = 0
    READ = 1
    WRITE = 2


class Rights(NamedTuple):
    """What a client may do with a field."""

    read: bool
    write: bool
    trap: bool = False  # its puts are logged at INFO, else at DEBUG


@dataclass(frozen=True)
class Rule:
    """One RULE of a group; None for users or hosts: whoever, from wherever."""

    level: int
    grant: Grant
    trap: bool = False
    users: frozenset[str] | None = None
    hosts: Container[str] | None = None  # addresses

    def holds_for(self, level: int, user: str, address: str) -> bool:
        return (
            level <= self.level
            and (self.users is None or user in self.users)
            and (self.hosts is None or address in self.hosts)
        )

    @property
    def lets_somebody_put(self) -> bool:
        nobody = frozenset() in (self.users, self.hosts)
        return self.grant is Grant.WRITE and self.level >= VALUE_LEVEL and not nobody


@dataclass(frozen=True)
class AccessRules:
    """The rules of all groups, those of an access file or those without one."""

    groups: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)  # none: nobody may do anything

    def rights(self, group: str, level: int, user: str, address: str) -> Rights:
        """Return what a client may do with the fields of one level of a group's PVs."""
        granted, trap = Grant.NONE, False
        for rule in self._of(group):
            if rule.grant > granted and rule.holds_for(level, user, address):
                granted, trap = rule.grant, rule.trap
        return Rights(granted >= Grant.READ, granted is Grant.WRITE, trap)

    def lets_somebody_put(self, group: str) -> bool:
        """Tell whether there can be a client that may put a group's PVs."""
        return any(rule.lets_somebody_put for rule in self._of(group))

    def _of(self, group: str) -> tuple[Rule, ...]:
        return self.groups.get(group, self.groups.get(DEFAULT, ()))

    @property
    def read_only(self) -> bool:
        """Whether commands are disabled: nobody may put one."""
        return not self.lets_somebody_put("CMD")

    @property
    def maintenance(self) -> bool:
        """Whether commands are disabled, but not what experts may change."""
        return self.read_only and self.lets_somebody_put("ADM")


class ThisMachine:
    """The addresses of this machine, as they are when somebody connects: an interface may come up late."""

    def __contains__(self, address: object) -> bool:
        return is_loopback(str(address)) or address in own_addresses()


READ_BY_ALL = Rule(FIELD_LEVEL, Grant.READ)
WRITE_FROM_HERE = Rule(FIELD_LEVEL, Grant.WRITE, trap=True, hosts=ThisMachine())

THIS_MACHINE_ONLY = AccessRules({DEFAULT: (READ_BY_ALL, WRITE_FROM_HERE)})
"""The rules where no file gives any: all may read, clients on this machine may put."""
