"""What a put does: setpoints keep what was asked, commands go to the one door.

Every method has the signature of a row's ``put``: the value is already decoded
(a state's name, a number, a text), and an exception is the put's error. How a refusal or a
result looks is in ``ioc.commands.results``.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from daq_core.detectors import FORMATS
from daq_core.errors import Busy, DaqError, InvalidConfig, InvalidRequest, RunFailed, Unavailable
from daq_core.state.status import (
    AcquisitionState,
    DaqStatus,
    WriteRequest,
    checked_n_images,
    checked_output_file,
    checked_run_id,
)
from ioc.commands.area_detector import AreaDetector
from ioc.commands.client import AUTOSAVE, Client
from ioc.commands.results import TIMEOUT_S, Results
from ioc.values.operator import LastCommand, Setpoints
from ioc.values.staging import Staging

if TYPE_CHECKING:
    from daq_core.control.door import Door
    from ioc.access.control import AccessControl

log = logging.getLogger(__name__)

MAX_LOG_N = 50


class Commands:
    """The setpoints and commands of the IOC.

    `changed` is called whenever one of its values changed, `note_error` with what IOC:LastError_RBV
    shows, `end` to end the service soon, in order, so that it is started again.
    """

    def __init__(
        self,
        daq: Door,
        changed: Callable[[], None],
        access: AccessControl,
        note_error: Callable[[str], None],
        end: Callable[[], None] | None = None,
    ) -> None:
        self._daq = daq
        self.access = access
        self._note_error = note_error
        self._end = end
        self.results = Results(changed)
        self.area = AreaDetector(daq, self.results)
        self.setpoints = Setpoints()
        self.staging = Staging()
        self._given_up = asyncio.Event()  # a Stop could not make the DAQ READY; then there is another one

    @property
    def last(self) -> LastCommand:
        """The result of the last command, and which are active."""
        return self.results.last

    # -- setpoints ---------------------------------------------------------------------------

    async def put_output_file(self, path: str, client: Client) -> None:
        with self.results.setting("OutputFile", client):
            self.setpoints = replace(self.setpoints, output_file=checked_output_file(path))
            self._daq.expect(os.path.dirname(path))

    async def put_n_images(self, n_images: int, client: Client) -> None:
        with self.results.setting("NImages", client):
            self.setpoints = replace(self.setpoints, n_images=checked_n_images(n_images))

    async def put_run_id(self, text: str, client: Client) -> None:
        with self.results.setting("RunId", client):
            if text:
                checked_run_id(run_id_of(text))
            self.setpoints = replace(self.setpoints, run_id=text)

    async def put_log_n(self, n: int, client: Client) -> None:
        with self.results.setting("LogN", client):
            if not 1 <= n <= MAX_LOG_N:
                raise InvalidRequest(f"Invalid LogN={n}. Must be 1 to {MAX_LOG_N}.")
            self.setpoints = replace(self.setpoints, log_n=n)

    async def restore(self, put: Put, value: Any) -> None:
        """Put a saved setpoint back; a refusal is an exception alone, for no client asked for it."""
        shown = self.results.last
        try:
            await put(self, value, AUTOSAVE)
        finally:
            self.results.last = shown

    # -- the run -----------------------------------------------------------------------------

    async def write_async(self, choice: str, client: Client) -> None:
        """Start a run; returns when the file is open, or raises when it was refused."""
        if choice == "Start":
            async with self.results.carry_out("WriteAsync", client):
                await self._start()

    async def write_sync(self, choice: str, client: Client) -> None:
        """Start a run; returns when its file is closed, or raises when it was refused or failed."""
        if choice != "Start":
            return
        async with self.results.carry_out("WriteSync", client):
            status = await self._start()
            with self.results.active("WriteSync"):
                if status.acquisition.running:
                    status = await self._daq.wait()
            if status.acquisition.state is AcquisitionState.FAILED:
                raise RunFailed(status.acquisition.message)

    async def stop(self, choice: str, client: Client) -> None:
        """End whatever goes on; returns when the DAQ is READY. Nobody waits for anything after it."""
        if choice == "Stop":
            async with self.results.carry_out("Stop", client):
                with self.results.active("Stop"):
                    try:
                        await self._daq.stop()
                    except DaqError:
                        self._given_up.set()
                        self._given_up = asyncio.Event()
                        raise
                    finally:
                        await self.area.end_acquire()

    async def _start(self) -> DaqStatus:
        wanted = self.setpoints
        if wanted.output_file is None:
            raise InvalidRequest("OutputFile is not set. Put an absolute path there first.")
        run_id = run_id_of(wanted.run_id) if wanted.run_id else None
        status = await self._daq.start(WriteRequest.checked(wanted.output_file, wanted.n_images, run_id))
        if self.setpoints.run_id == wanted.run_id:  # a name is for one run
            self.setpoints = replace(self.setpoints, run_id="")
        return status

    # -- the service -------------------------------------------------------------------------

    async def restart(self, choice: str, client: Client) -> None:
        """End the service in order, for its supervisor to start it again; refused while a run is going on."""
        if choice != "Restart":
            return
        async with self.results.carry_out("SYSRESET", client):
            if self._daq.is_taken:
                raise Busy("A run is going on. Stop it before SYSRESET.")
            if self._end is None:
                raise Unavailable("Nothing would start this service again.")
            log.warning("SYSRESET by %s (%s)", client, client.address)
            self._end()

    # -- the config --------------------------------------------------------------------------

    async def put_key(self, pv: str, key: str, value: object, client: Client) -> None:
        with self.results.setting(pv, client):
            self.staging = self.staging.put(key, value)

    async def put_bit_depth(self, value: int, client: Client) -> None:
        with self.results.setting("CfgBitDepth", client):
            self.staging = self.staging.put_bit_depth(value)

    async def put_type(self, name: str, client: Client) -> None:
        with self.results.setting("CfgDetectorType", client):
            if name not in FORMATS:
                raise InvalidConfig(f"detector_type {name} is not supported; known are {', '.join(FORMATS)}.")
            self.staging = self.staging.put("detector_type", name)

    async def put_ids(self, ids: tuple[int, ...], client: Client) -> None:
        with self.results.setting("CfgModuleIds", client):
            self.staging = replace(self.staging, module_ids=ids)

    async def put_corners(self, corners: tuple[int, ...], client: Client) -> None:
        with self.results.setting("CfgModulePositions", client):
            self.staging = replace(self.staging, corners=corners)

    async def put_json(self, text: str, client: Client) -> None:
        with self.results.setting("CfgJson", client):
            self.staging = self.staging.put_json(text, self._daq.snapshot.config)

    async def apply_config(self, choice: str, client: Client) -> None:
        """Configure the DAQ with what is staged; returns when the new config is running."""
        if choice != "Apply":
            return
        async with self.results.carry_out("ConfigApply", client):
            staged = self.staging
            await self._daq.configure(staged.request(self._daq.snapshot.config))
            if self.staging is staged:
                self.staging = Staging()
            with self.results.active("ConfigApply"):
                async with asyncio.timeout(TIMEOUT_S):
                    await self._reconfigured()

    async def _reconfigured(self) -> None:
        """Wait until the new config runs, or until a Stop could not make the DAQ READY with it."""
        running = asyncio.create_task(self._daq.reconfigured())
        given_up = asyncio.create_task(self._given_up.wait())
        try:
            await asyncio.wait({running, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise Unavailable("Stopped before the new config ran. See State_RBV and DeployMessage_RBV.")
            await running
        finally:
            running.cancel()
            given_up.cancel()

    async def revert_config(self, choice: str, client: Client) -> None:
        """Forget what is staged."""
        if choice == "Revert":
            async with self.results.carry_out("ConfigRevert", client):
                self.staging = Staging()

    # -- who may do what ---------------------------------------------------------------------

    async def reload_access(self, choice: str, client: Client) -> None:
        """Read the access file again; connected clients are told. A wrong file leaves the rules alone."""
        if choice != "Reload":
            return
        async with self.results.carry_out("READACF", client):
            with self.results.active("READACF"):
                try:
                    await self.access.reload()
                except InvalidConfig as wrong:
                    self._note_error(f"READACF: {wrong} The rules are as before.")
                    raise


Put = Callable[[Commands, Any, Client], Awaitable[None]]
"""What a put of a PV does: with a value that is decoded, for a client."""


def stage(pv: str, key: str) -> Put:
    """Return the put of a PV that stages one config key as it is."""
    return lambda commands, value, client: commands.put_key(pv, key, value, client)


def run_id_of(text: str) -> int | str:
    """Return a run id as std_daq's clients expect it: a whole number where the text is one."""
    try:
        number = int(text)
    except ValueError:
        return text
    return number if str(number) == text and -(2**63) <= number < 2**63 else text
