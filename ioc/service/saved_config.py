"""The last config that ran outlives the service: kept in the state directory, chosen at the next start.

Which config a start takes: the saved one, since somebody set it on the running
service; but ``--config`` when that file was edited after it, or with
``--fresh``. The saved one belongs to the config file it was derived from, so
pointing ``--config`` at another detector never brings back the old one. One that
cannot run here and now gives way to the one before it, or to ``--config``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Protocol

from daq_core.config import DaqConfig, named, nearest_key, read_json, unknown_keys
from daq_core.errors import DaqError, Unavailable
from daq_core.linux.disk_thread import DiskThread
from daq_core.state.status import Snapshot
from ioc.service.config_file import read, written
from ioc.service.durable_file import sync_names, write_beside

log = logging.getLogger(__name__)

RETRY_S = 5.0
PREPARE_S = 1.0  # for the disk, while somebody waits for the answer to a config
LAST_SAVE_S = 2.0  # for the disk, when the service ends


class _Publishing(Protocol):
    @property
    def snapshot(self) -> Snapshot: ...
    def subscribe(self, listener: Callable[[Snapshot], None]) -> Callable[[], None]: ...
    def warn_of_saving(self, trouble: str) -> None: ...


class SavedConfig:
    """Usage: ``config, *others = saved.choose(fresh=False)``, then ``saved.keep(daq)`` as a task."""

    def __init__(self, config_file: Path, state_dir: Path) -> None:
        self.config_file = config_file.resolve()
        self.path = state_dir / "config.json"
        self.path_before = state_dir / "config.before.json"
        self.trouble = ""  # of the choice: why it is not the config that was set last, or not as it was meant
        self._kept: DaqConfig | None = None  # what the next start will find
        self._disk = DiskThread("config")

    # ------------------------------------------------------------ the choice

    def choose(
        self, *, fresh: bool, check: Callable[[DaqConfig], None] = lambda config: None
    ) -> list[DaqConfig]:
        """Return the config to start with, and behind it those to start with should it not run.

        Raises
        ------
        DaqError
            The config file is not legal, whatever is saved; or `check` refuses all there are.
        """
        given = DaqConfig.load(self.config_file)
        if fresh:
            self._forget()
        known = self._known(given)
        while True:
            try:
                check(known[0])
            except DaqError as error:
                if len(known) == 1:
                    raise
                known.pop(0)
                self._warn(f"the config that was set last cannot run: {error}", known[0] is given)
            else:
                if known[0] is given and (mistyped := self._mistyped()):
                    self.trouble = f"{self.trouble} {mistyped}".strip()
                return known

    def _mistyped(self) -> str:
        """Name keys of the config file that no config has but resemble one; loading it has logged them."""
        unknown = unknown_keys(read_json(self.config_file.read_text(encoding="utf-8")))
        likely = [key for key in unknown if nearest_key(key)]
        return f"{self.config_file} has keys that are ignored: {named(likely)}." if likely else ""

    def _known(self, given: DaqConfig) -> list[DaqConfig]:
        """Return all configs that a start may take, the best first; the given one is the last."""
        edited = self.config_file.stat().st_mtime
        saved: list[DaqConfig] = []
        for path in (self.path, self.path_before):
            if not path.exists():
                continue
            if edited > path.stat().st_mtime:
                log.info("config: %s (edited after %s)", self.config_file, path)
                break
            try:
                config, belongs_to = read(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                said = error.strerror if isinstance(error, OSError) else error
                if path is self.path:
                    self.trouble = f"the config in {path} is unusable: {said}."
                continue
            if belongs_to != str(self.config_file):
                log.info("config: %s; the one kept in %s is another's", self.config_file, path)
            elif config not in saved:
                saved.append(config)
        if given in saved:
            saved = saved[: saved.index(given)]
        if self.trouble:
            self._warn(self.trouble, is_given=not saved)
        elif saved:
            log.warning(
                "config: the last one that was set on the service, %s, not %s; --fresh takes the file",
                self.path,
                self.config_file,
            )
        return [*saved, given]

    def _warn(self, trouble: str, is_given: bool) -> None:
        used = f"{self.config_file} is in use." if is_given else "The one before it is in use."
        self.trouble = f"{trouble} {used}"
        log.error("config: %s", self.trouble)

    def _forget(self) -> None:
        for path in (self.path, self.path_before):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise Unavailable(f"{path} cannot be removed for --fresh: {error.strerror}.") from None

    # ------------------------------------------------------------ keeping it

    async def prepare(self, config: DaqConfig) -> str:
        """Take the space for a config that was accepted; returns why it will not be kept, "" when it will."""
        if config == self._kept:
            return ""
        trouble: list[str] = []
        done = self._submit(lambda: self._write_new(config), trouble)
        if not (await asyncio.wait({asyncio.wrap_future(done)}, timeout=PREPARE_S))[0]:
            return self._unanswered()
        return "".join(trouble)

    async def keep_now(self, config: DaqConfig) -> None:
        """Save a config that runs before anybody is told so; what fails is left to :meth:`keep`."""
        if config == self._kept:
            return
        trouble: list[str] = []
        done = asyncio.wrap_future(self._submit(partial(self.save, config), trouble))
        if (await asyncio.wait({done}, timeout=PREPARE_S))[0] and not trouble:
            self._kept = config

    async def keep(self, daq: _Publishing) -> None:
        """Save every config that ran, until cancelled; the disk is never waited for in the loop.

        What could not be saved is tried again with the next config, every 5 s, and at the end.
        """
        self._kept, changed = daq.snapshot.ran, asyncio.Event()
        unsubscribe = daq.subscribe(lambda now: changed.set() if now.ran != self._kept else None)
        trouble: list[str] = []
        try:
            while True:
                await _wait(changed, RETRY_S if trouble else None)
                changed.clear()
                if (config := daq.snapshot.ran) is None or config == self._kept:
                    trouble = []
                else:
                    await self._save_soon(config, daq, trouble := [])
                    self._kept = self._kept if trouble else config
                daq.warn_of_saving("".join(trouble))
        finally:
            unsubscribe()
            last = daq.snapshot.ran
            if last is not None and last != self._kept:  # set in the last moment, or not saved until now
                self._submit(partial(self.save, last), trouble := [])
            if not await self._disk.finish(LAST_SAVE_S):
                trouble = [self._unanswered()]
            if trouble:
                log.error("config: %s", trouble[0])

    async def _save_soon(self, config: DaqConfig, daq: _Publishing, trouble: list[str]) -> None:
        done = asyncio.wrap_future(self._submit(partial(self.save, config), trouble))
        while not (await asyncio.wait({done}, timeout=RETRY_S))[0]:
            daq.warn_of_saving(self._unanswered())

    def save(self, config: DaqConfig) -> None:
        """Replace the saved config, whole or not at all; the former one is kept as the one before."""
        new = self._write_new(config)
        if self._is_another(config):
            self.path.replace(self.path_before)
        new.replace(self.path)
        sync_names(self.path.parent)

    def _write_new(self, config: DaqConfig) -> Path:
        return write_beside(self.path, written(config, self.config_file))

    def _is_another(self, config: DaqConfig) -> bool:
        """Tell whether what is saved is whole, and not this config."""
        try:
            return read(self.path.read_text(encoding="utf-8"))[0] != config
        except (OSError, ValueError):
            return False

    def _submit(self, work: Callable[[], object], trouble: list[str]) -> Future[None]:
        """Have the disk thread do something; what goes wrong is put into `trouble`."""

        def attempt() -> None:
            try:
                work()
            except OSError as error:
                trouble.append(
                    f"the config is not kept for the next start: {error.strerror} ({self.path}). "
                    f"It is tried again every {RETRY_S:.0f} s."
                )

        return self._disk.submit(attempt)

    def _unanswered(self) -> str:
        return f"the config is not kept for the next start: the disk of {self.path} does not answer."


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
