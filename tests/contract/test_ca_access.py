"""Who may read and put what by Channel Access: clients are told as by a C IOC, also when the rules change."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ioc.pvs.daq import PVS
from tests.channel_access.access_pair import (
    EVERYTHING,
    ME,
    NOTHING,
    READ_ONLY,
    Pair,
    Wire,
    config,
    put_inside,
)
from tests.channel_access.ca_wire import (
    WRITE_NOTIFY,
)
from tests.channel_access.epics_peer import ECA_NORMAL, EpicsPeer
from tests.channel_access.ioc_thread import IocThread
from tests.channel_access.soft_ioc import ROOT
from tests.conftest import StartService


@pytest.fixture
def ioc(pair: Pair) -> IocThread:
    return pair.ours


def assert_same_rights(pair: Pair, names: dict[str, bool]) -> list[tuple[bool, bool]]:
    """Demand the rights that a C IOC gives, without write access to PVs that cannot be put (False)."""
    with EpicsPeer(pair.ours.ca_port) as ours, EpicsPeer(pair.theirs.port) as theirs:
        found, wanted = ours.rights(*names), theirs.rights(*names)
    expected = [(read, write and puts) for (read, write), puts in zip(wanted, names.values(), strict=True)]
    assert dict(zip(names, found, strict=True)) == dict(zip(names, expected, strict=True))
    return found


@pytest.mark.parametrize(
    ("text", "some"),
    [
        (READ_ONLY, (True, False)),
        (NOTHING, (False, False)),
        (EVERYTHING, (True, True)),
        ("ASG(DEFAULT) {RULE(0, READ) RULE(1, NONE)}", (False, False)),
        ("UAG(u) {ME}\nASG(DEFAULT) {RULE(1, READ)}\nASG(RW) {RULE(1, WRITE) {UAG(u)}}", (True, True)),
        ("UAG(u) {somebody}\nASG(DEFAULT) {RULE(1, READ) RULE(1, WRITE) {UAG(u)}}", (True, False)),
        (
            "HAG(h) {localhost}\nASG(DEFAULT) {RULE(1, READ)}\nASG(CMD) {RULE(0, WRITE) {HAG(h)}}",
            (True, True),
        ),
        ("HAG(h) {192.0.2.99}\nASG(RW) {RULE(1, READ) RULE(1, WRITE) {HAG(h)}}", (False, False)),
        (
            "UAG(u) {ME}\nHAG(h)\nASG(ADM) {RULE(1, READ) {UAG(u)} RULE(1, WRITE) {UAG(u) HAG(h)}}",
            (True, False),
        ),
    ],
)
def test_a_c_client_has_the_rights_that_a_c_ioc_gives_it(
    pair: Pair, text: str, some: tuple[bool, bool]
) -> None:
    pair.use(text.replace("ME", f'"{ME}"'))
    put = "DAQ:NImages DAQ:NImages.VAL DAQ:Stop DAQ:CfgJson HDF1:FilePath HDF1:Capture IOC:READACF cam1:SizeX"
    read = "DAQ:State_RBV DAQ:State_RBV.DESC DAQ:NImages.DRVH DAQ:Stop.ASG DAQ:CfgJson.NORD"
    names = {pair.ours.pv(name): name in put.split() for name in f"{put} {read}".split()}
    assert some in assert_same_rights(pair, names)


@pytest.mark.parametrize(
    ("operators", "experts", "may_put"),
    [("somebody", "somebody", set()), (ME, "somebody", {"RW", "CMD"}), (ME, ME, {"RW", "CMD", "ADM"})],
)
def test_the_example_means_the_same_in_a_c_ioc(
    pair: Pair, operators: str, experts: str, may_put: set[str]
) -> None:
    example = (ROOT / "db/daq.acf").read_text()
    pair.use(example.replace("{operator}", f'{{"{operators}"}}').replace("{expert}", f'{{"{experts}"}}'))
    found = assert_same_rights(pair, {row.pv(pair.ours.prefix): row.put is not None for row in PVS})
    assert found == [(True, row.access in may_put) for row in PVS]


def test_every_field_asg_is_that_of_the_c_record(pair: Pair) -> None:
    pair.use(READ_ONLY)
    with EpicsPeer(pair.ours.ca_port) as ours, EpicsPeer(pair.theirs.port) as theirs:
        for name in ("DAQ:State_RBV.ASG", "DAQ:NImages.ASG", "DAQ:Stop.ASG", "IOC:READACF.ASG"):
            assert ours.text(pair.ours.pv(name)) == theirs.text(pair.ours.pv(name))


# -- rules change -----------------------------------------------------------------------------


def test_readacf_tells_connected_clients_and_ends_and_begins_their_monitors(
    pair: Pair, ioc: IocThread
) -> None:
    pair.use("ASG(DEFAULT) {RULE(1, READ)} ASG(ADM) {RULE(1, WRITE)} ASG(RW) {RULE(1, WRITE)}")
    n_images, readacf, read_only = ioc.pv("DAQ:NImages"), ioc.pv("IOC:READACF"), ioc.pv("IOC:ReadOnly_RBV")
    with EpicsPeer(ioc.ca_port) as client, EpicsPeer(ioc.ca_port) as expert:
        assert client.put(n_images, 1) == ECA_NORMAL
        client.monitor(n_images)
        expert.monitor(readacf, read_only)
        assert client.rights(n_images) == [(True, True)]

        pair.file.write_text("ASG(DEFAULT) {RULE(1, READ)} ASG(ADM) {RULE(1, WRITE)} ASG(RW) {RULE(1, NONE)}")
        assert expert.put(readacf, 1) == ECA_NORMAL
        client.wait_for_rights(n_images, read=False, write=False)
        with pytest.raises(AssertionError, match="Write access denied"):
            client.put(n_images, 2)
        with pytest.raises(AssertionError, match="Read access denied"):
            client.get(n_images)
        ioc.do(put_inside(ioc, 3))
        before = client.updates(n_images)

        pair.file.write_text("ASG(DEFAULT) {RULE(1, WRITE)}")
        assert expert.put(readacf, 1) == ECA_NORMAL
        client.wait_for_rights(n_images, read=True, write=True)
        client.wait_for(n_images, 3)
        assert client.updates(n_images) == [*before, 3]
        assert client.put(n_images, 4) == ECA_NORMAL
        assert expert.updates(readacf)[:3] == ["No", "Reload", "No"]
        expert.wait_for(read_only, "No")
        assert expert.updates(read_only)[0] == "Yes"


def test_a_wrong_file_is_refused_and_the_rules_stay(pair: Pair, ioc: IocThread) -> None:
    pair.use(EVERYTHING)
    with EpicsPeer(ioc.ca_port) as client:
        last_error, message = ioc.pv("IOC:LastError_RBV"), ioc.pv("DAQ:CmdMessage_RBV")
        pair.file.write_text('ASG(DEFAULT) {\n  INPA("X:Y")\n}')
        assert client.put(ioc.pv("IOC:READACF"), 1) != ECA_NORMAL
        says = f"{pair.file}, line 2: INPA: rules cannot depend on PVs here"
        assert client.text(message).startswith(says)
        assert client.text(ioc.pv("DAQ:CmdStatus_RBV")) == "Rejected"
        wait_until(lambda: client.text(last_error).startswith(f"READACF: {says}"))
        assert client.rights(ioc.pv("DAQ:NImages")) == [(True, True)]
        assert client.put(ioc.pv("DAQ:NImages"), 5) == ECA_NORMAL


@pytest.mark.parametrize(
    ("text", "read_only", "access"),
    [
        (EVERYTHING, "No", "Running"),
        (READ_ONLY, "Yes", "Running"),
        ("ASG(DEFAULT) {RULE(1, READ)} ASG(ADM) {RULE(1, WRITE)}", "Yes", "Maintenance"),
    ],
)
def test_the_pvs_say_whether_commands_are_disabled(
    pair: Pair, ioc: IocThread, text: str, read_only: str, access: str
) -> None:
    pair.use(text)
    with EpicsPeer(ioc.ca_port) as client:
        client.monitor(ioc.pv("IOC:ReadOnly_RBV"), ioc.pv("IOC:ACCESS"))
        wait_until(lambda: client.updates(ioc.pv("IOC:ReadOnly_RBV"))[-1] == read_only)
        wait_until(lambda: client.updates(ioc.pv("IOC:ACCESS"))[-1] == access)
        assert client.info(ioc.pv("IOC:ReadOnly_RBV"))["severity"] == int(read_only == "Yes")
        assert client.info(ioc.pv("IOC:ACCESS"))["severity"] == int(access == "Maintenance")


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- the whole program ------------------------------------------------------------------------


def test_serve_reads_the_file_and_logs_puts(start_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "site.acf"
    file.write_text("UAG(u) {alice}\nASG(DEFAULT) {RULE(1, READ) RULE(1, WRITE, TRAPWRITE) {UAG(u)}}")
    service = start_service(acf=file)
    name = service.prefix + "DAQ:NImages"
    with EpicsPeer(service.ca_port) as peer, Wire(service.ca_port, b"alice", host=b"pc7") as alice:
        assert peer.rights(name) == [(True, False)]
        sid, _ = alice.channel(name)
        alice.put(sid, 21, WRITE_NOTIFY)
        assert alice.next(WRITE_NOTIFY).p1 == ECA_NORMAL
        assert peer.get(name) == 21
    service.logged(f"INFO    ioc.channel_access.puts: alice@pc7 (127.0.0.1) puts {name} = 21: accepted")


def test_a_wrong_file_ends_the_start_with_one_line(start_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "site.acf"
    file.write_text('ASG(DEFAULT) {\n RULE(1, WRITE) { CALC("A=1") }\n}')
    config_file = tmp_path / "detector.json"
    config_file.write_text(config().as_json())
    command = ["serve", "--config", str(config_file), "--prefix", "X:", "--no-redis", "--acf", str(file)]
    done = subprocess.run(
        [sys.executable, "-m", "ioc", *command], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"std-daq-ioc: {file}, line 2: CALC: rules cannot depend on PVs here;")
    assert done.stderr.count("\n") == 1
