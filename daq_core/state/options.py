"""What a DAQ is started with besides its detector config; it stays so until the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from daq_core.errors import InvalidConfig
from daq_core.linux.network import Network
from daq_core.state.image_timeouts import ImageTimeouts
from daq_core.state.receive_threads import ReceiveThreads

if TYPE_CHECKING:
    from daq_core.config import DaqConfig


@dataclass(frozen=True)
class DaqOptions:
    """The options of one DAQ."""

    udp_host: str = "0.0.0.0"
    udp_sources: tuple[Network, ...] = ()  # whose packets are taken; none: everybody's
    receive_threads: ReceiveThreads = field(default_factory=ReceiveThreads)
    first_image_timeout_s: float | None = None  # a run without images fails after that; None: it waits
    stall_timeout_s: float | None = None  # so does one whose images stop
    id_source: Literal["frame", "bunch", "bunch-int"] = "frame"
    output_roots: tuple[str, ...] = ("/",)
    state_dir: Path | None = None  # where the journal lives; None: nothing is kept
    overwrite: bool = False
    direct_io: Literal["auto", "never"] = "auto"  # auto: uncompressed images go past the page cache
    writer_group: int | None = None
    min_user_id: int = 0  # who may own files, the service's own user included; 0: anybody

    def image_timeouts(self) -> ImageTimeouts:
        """Return the limits for one run."""
        return ImageTimeouts(self.first_image_timeout_s, self.stall_timeout_s)

    def check(self, config: DaqConfig) -> None:
        """Refuse a config that these options do not go with: InvalidConfig says why."""
        if any(network.version != 4 for network in self.udp_sources):
            raise InvalidConfig(
                "--udp-sources has IPv6: packets come by IPv4, so it must be IPv4 addresses or networks."
            )
        if self.id_source != "frame" and not config.detector_type.startswith("jungfrau"):
            raise InvalidConfig(
                f"Config errors: --id-source {self.id_source} is for a Jungfrau; "
                f"a detector of type {config.detector_type} sends no bunch id."
            )
