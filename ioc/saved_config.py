"""The last accepted config outlives the service: kept in the state directory, chosen at the next start.

Which config a start takes: the saved one, since somebody set it on the running
service; but ``--config`` when that file was edited after it, or with
``--fresh``. The saved one belongs to the config file it was derived from, so
pointing ``--config`` at another detector never brings back the old one.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from daq_core.config import DaqConfig
from daq_core.disk_thread import DiskThread
from daq_core.errors import InvalidConfig, Unavailable
from daq_core.status import Snapshot
from ioc.durable_file import replace_file

log = logging.getLogger(__name__)

LAST_SAVE_S = 2.0  # for the disk, when the service ends


class _Publishing(Protocol):
    @property
    def snapshot(self) -> Snapshot: ...
    def subscribe(self, listener: Callable[[Snapshot], None]) -> Callable[[], None]: ...


class SavedConfig:
    """Usage: ``config = saved.choose(fresh=False)``, then ``saved.keep(daq)`` as a task."""

    def __init__(self, config_file: Path, state_dir: Path) -> None:
        self.config_file = config_file.resolve()
        self.path = state_dir / "config.json"

    def choose(self, *, fresh: bool) -> DaqConfig:
        """Return the config to start with; InvalidConfig when the config file is not legal."""
        given = DaqConfig.load(self.config_file)
        if fresh:
            self._forget()
        saved = self._load()
        if saved is None or saved == given:
            return given
        if self.config_file.stat().st_mtime > self.path.stat().st_mtime:
            log.info("config: %s (edited after the last config that was set)", self.config_file)
            return given
        log.warning(
            "config: the last one that was set on the service, %s, not %s; --fresh takes the file",
            self.path,
            self.config_file,
        )
        return saved

    def _forget(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be removed for --fresh: {error.strerror}.") from None

    async def keep(self, daq: _Publishing) -> None:
        """Save every new config of a DAQ, until cancelled; the disk is never waited for in the loop."""
        config, changed, disk = daq.snapshot.config, asyncio.Event(), DiskThread("config")
        unsubscribe = daq.subscribe(lambda snapshot: changed.set() if snapshot.config != config else None)
        try:
            while True:
                await changed.wait()
                changed.clear()
                config = daq.snapshot.config
                await asyncio.wrap_future(disk.submit(partial(self._try_to_save, config)))
        finally:
            unsubscribe()
            if changed.is_set():  # set in the last moment before the end
                disk.submit(partial(self._try_to_save, daq.snapshot.config))
            if not await disk.finish(LAST_SAVE_S):
                log.error("config: the disk of %s does not answer; the last one is not kept", self.path)

    def save(self, config: DaqConfig) -> None:
        """Replace the saved config, whole or not at all."""
        text = json.dumps({"config_file": str(self.config_file), "config": config.as_dict()}, indent=1)
        replace_file(self.path, text)

    def _try_to_save(self, config: DaqConfig) -> None:
        try:
            self.save(config)
        except OSError as error:
            log.error("config: cannot be saved for the next start: %s", error)

    def _load(self) -> DaqConfig | None:
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["config_file"] != str(self.config_file):
                log.info("config: %s; the one kept in %s is another's", self.config_file, self.path)
                return None
            return DaqConfig.parse(kept["config"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, InvalidConfig) as error:
            log.warning("config: %s; the one kept in %s is unusable: %s", self.config_file, self.path, error)
            return None
