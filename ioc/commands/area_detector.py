"""What a put to an areaDetector PV does: Acquire, Capture and the names of files, over the one door.

In areaDetector a plugin sees what the driver takes while Acquire is on. So the counters of ``cam1:``
and ``HDF1:`` move only then, and a client that puts Acquire captures only then: its run is by valve
(``daq_core.pipeline.valve``). One that puts Capture alone knows of no Acquire, and captures at once.

Clients like ophyd and ophyd-async rely on orders that no single PV shows, so they
are said here: FilePath_RBV changes once the folder was looked at; FileNumber and
FullFileName_RBV change when a capture is accepted, Capture_RBV when its file waits
for images; a put of Capture or Acquire completes when it has ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from daq_core.control.claim import Asked
from daq_core.errors import Busy, DaqError, InvalidRequest, RunFailed, Unavailable
from daq_core.state.status import AcquisitionState, Snapshot, WriteRequest, checked_run_id
from ioc.commands.area_file_name import checked_folder, checked_name, checked_template, full_file_name
from ioc.commands.client import Client
from ioc.commands.results import Results
from ioc.values.area import Area, wrapped

if TYPE_CHECKING:
    from daq_core.control.door import Door

TICK_S = 0.02  # how often an Acquire counts the images that came
OPENING_TICK_S = 0.002  # how often it looks whether the receiver lets them through
OFF = "Done"  # the state of a busy record that ends what goes on


class AreaDetector:
    """The setpoints and commands of ``cam1:`` and ``HDF1:``."""

    def __init__(self, daq: Door, results: Results) -> None:
        self._daq = daq
        self._results = results
        self._looking = asyncio.Lock()  # at folders, one after the other: the last one put is shown
        self._acquiring = asyncio.Lock()  # held while an Acquire is active
        self._abort = asyncio.Event()  # set to end it
        self._beat_before = (time.monotonic(), 0)  # when images were counted last, and how many had come
        self.state = Area()

    # -- what areaDetector has and there is nothing for here --------------------------------------

    async def have_no_effect(self, choice: str, client: Client) -> None:
        """Take a command that has nothing to do: what it would bring about is so already."""

    async def decline(self, pv: str, reason: str, choice: str, client: Client) -> None:
        """Refuse a command that cannot be carried out here; one that ends it is fine."""
        if choice != OFF:
            async with self._results.carry_out(pv, client):
                raise InvalidRequest(reason)

    # -- setpoints ---------------------------------------------------------------------------

    async def keep(self, pv: str, value: Any, client: Client) -> None:
        """Keep a setpoint that has no effect here."""
        with self._results.setting(pv, client):
            self._set(kept={**self.state.kept, pv: value})

    async def put(self, pv: str, name: str, value: Any, client: Client) -> None:
        """Keep a setpoint that has one."""
        with self._results.setting(pv, client):
            self._set(**{name: value})

    async def confirm(self, pv: str, true: Callable[[Snapshot], Any], value: Any, client: Client) -> None:
        """Accept what cannot be changed only as it is."""
        with self._results.setting(pv, client):
            if value != (is_now := true(self._daq.snapshot)):
                raise InvalidRequest(f"{pv} is {is_now} and cannot be set to {value} here.")

    async def put_file_path(self, path: str, client: Client) -> None:
        """Look at a folder, as the user who will write there; returns when it is known to be there or not."""
        with self._results.setting("FilePath", client):
            folder = checked_folder(path)
            async with self._looking:
                levels = max(0, -self.state.create_directory)
                trouble = await self._daq.look_at(folder, may_make=levels)
                self._set(file_path=path, folder=folder, folder_trouble=trouble)

    async def restore_file_path(self, path: str, client: Client) -> None:
        """Put a saved folder back; whether it is there is seen later, by :meth:`look_again`."""
        if path:
            checked_folder(path)
        self._set(file_path=path)

    async def look_again(self) -> None:
        """Look at a folder that was restored; makes none. Unavailable: the file system did not answer."""
        async with self._looking:
            if self.state.file_path and self.state.folder is None:
                folder = checked_folder(self.state.file_path)
                self._set(folder=folder, folder_trouble=await self._daq.look_at(folder))
                self._results.changed()

    async def put_file_name(self, name: str, client: Client) -> None:
        with self._results.setting("FileName", client):
            self._set(file_name=checked_name(name))

    async def put_file_template(self, template: str, client: Client) -> None:
        with self._results.setting("FileTemplate", client):
            self._set(file_template=checked_template(template))

    async def put_array_counter(self, pv: str, value: int, client: Client) -> None:
        with self._results.setting(pv, client):
            counted_from = {pv: (value, self.state.n_passed)}
            self._set(counted_from={**self.state.counted_from, **counted_from})

    # -- the file ----------------------------------------------------------------------------

    async def capture(self, choice: str, client: Client) -> None:
        """Start a run and return when it has ended; or stop whatever run is going on.

        The run of a client that has put Acquire takes the images that Acquire lets through.
        """
        async with self._results.carry_out("Capture", client):
            if choice == OFF:
                await self._daq.stop()
            else:
                by_valve = client.habits.uses_acquire
                await self._write("Capture", self.state.num_capture, by_valve=by_valve)

    async def write_file(self, choice: str, client: Client) -> None:
        """Write a file of the next image."""
        if choice != OFF:
            async with self._results.carry_out("WriteFile", client):
                await self._write("WriteFile", 1)

    async def flush(self, choice: str, client: Client) -> None:
        """Return when all images that have come can be read from the file."""
        if choice != OFF:
            with self._results.active("FlushNow"):
                await self._daq.flushed()

    async def _write(self, pv: str, n_images: int, *, by_valve: bool = False) -> None:
        asked = Asked(self._daq.n_stops)  # a Stop may come while the folder is looked at
        with self._refusals_shown():
            await self.look_again()
            area = self.state
            if area.folder is None:
                raise InvalidRequest("FilePath is not set. Put an absolute path of a folder there first.")
            path = full_file_name(area.file_template, area.folder, area.file_name, area.file_number)
            request = WriteRequest(path, n_images, checked_run_id(None))
            end_listening = self._daq.subscribe(lambda now: self._on_accepted(request, area, by_valve, now))
            try:
                status = await self._daq.start(request, asked, by_valve=by_valve)
            finally:
                end_listening()
        with self._results.active(pv):
            if status.acquisition.running:
                status = await self._daq.wait()
        if status.acquisition.state is AcquisitionState.FAILED:
            raise RunFailed(status.acquisition.message)

    def _on_accepted(self, request: WriteRequest, area: Area, by_valve: bool, snapshot: Snapshot) -> None:
        """Count the file as soon as its run is accepted, before it is open."""
        if snapshot.status.pending is request and self.state.file_number == area.file_number:
            number = wrapped(area.file_number + (area.auto_increment == "Yes"))
            self._set(refused="", file_number=number, run_by_valve=request if by_valve else None)
            self._results.changed()

    @contextmanager
    def _refusals_shown(self) -> Iterator[None]:
        """Show on WriteStatus and WriteMessage why a file was not begun."""
        try:
            yield
        except DaqError as refused:
            self._set(refused=str(refused), refused_at=time.time())
            raise

    # -- the detector ------------------------------------------------------------------------

    async def acquire(self, choice: str, client: Client) -> None:
        """Let NumImages images through, or all until Acquire is put to 0; returns when they are in."""
        client.habits.uses_acquire = True
        if choice == OFF:
            await self.end_acquire()
            return
        async with self._results.carry_out("Acquire", client):
            if self._acquiring.locked():
                raise Busy("Acquire is active already. Put 0 there to end it.")
            wanted = self._images_wanted()
            async with self._acquiring:
                self._abort.clear()
                self._daq.valve.open(wanted or 0)
                try:
                    await self._until_open()
                    with self._results.active("Acquire"):
                        await self._see_images(wanted)
                finally:
                    self._daq.valve.close()

    async def _until_open(self) -> None:
        """Wait until the receiver lets images through: one that is sent on seeing Acquire at 1 shall pass."""
        while not self._daq.valve.is_followed:
            self._check_receiver()
            await asyncio.sleep(OPENING_TICK_S)

    def _images_wanted(self) -> int | None:
        """Return how many images an Acquire waits for; None: until it is put to 0."""
        mode, n_images = self.state.image_mode, self.state.num_images
        if mode == "Multiple" and n_images < 1:
            raise InvalidRequest(
                "NumImages is 0. Put the number of images there, or ImageMode to Continuous."
            )
        return {"Single": 1, "Multiple": n_images, "Continuous": None}[mode]

    async def _see_images(self, wanted: int | None) -> None:
        """Count the images that come, and show it; returns when all are in, or at an abort."""
        outcome, before = "Error", self.state.n_passed
        self._show(phase="Waiting", n_acquired=0)
        try:
            while not self._abort.is_set() and (wanted is None or self.state.n_acquired < wanted):
                await asyncio.sleep(TICK_S)
                self._note_images(before)
            if self._abort.is_set():
                await self._shut(before)
            elif self.state.wait_for_plugins == "Yes":
                self._show(phase="Saving")
                await self._daq.flushed()
            outcome = "Aborted" if self._abort.is_set() else "Idle"
        finally:
            self._set(phase=outcome, acquire_ended=time.time())  # shown together with Acquire_RBV

    async def _shut(self, before: int) -> None:
        """Let nothing more through, and see those that are begun: no counter moves when Acquire is off."""
        self._daq.valve.close()
        while not self._daq.valve.is_settled:
            self._check_receiver()
            await asyncio.sleep(OPENING_TICK_S)
        self._note_images(before)

    def _note_images(self, before: int) -> None:
        """Count the images that came through since the Acquire began, when `before` had."""
        self._check_receiver()
        passed = self._daq.valve.passed
        if passed.n_images > self.state.n_acquired:
            n_images = passed.n_images
            phase = self.state.phase if self._abort.is_set() else "Acquire"
            self._show(phase=phase, n_acquired=n_images, n_passed=before + n_images, newest=passed)

    def _check_receiver(self) -> None:
        if self._daq.snapshot.status.receiver_down:
            raise Unavailable(f"The receiver is down: {self._daq.snapshot.status.reason}.")

    async def end_acquire(self) -> None:
        """End the Acquire that is active, if any; returns when it has."""
        if self._acquiring.locked():
            self._show(phase="Aborting")
            self._abort.set()
            async with self._acquiring:
                pass

    def beat(self) -> None:
        """Once a second, count what came through since the last time."""
        now, n_passed = time.monotonic(), self.state.n_passed
        then, n_before = self._beat_before
        self._beat_before = now, n_passed
        rate = (n_passed - n_before) / (now - then) if now - then > 0 else 0.0
        if rate != self.state.passed_per_second:
            self._set(passed_per_second=rate)

    # -- what is shown of it -----------------------------------------------------------------

    def _set(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def _show(self, **changes: Any) -> None:
        self._set(**changes)
        self._results.changed()
