#!/usr/bin/env bash
# EPICS Base takes the number of a state that an mbbo record does not have, from a client that puts
# an enum by number, and completes the put with success and without an alarm. A put by text looks
# for a label first: with a state labelled "10", "10" means that state, "3" the state of number 3,
# and 10 (a number) no state at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyepics==3.5.10 epicscorelibs==7.0.10.99.0.2 setuptools==84.2.1 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import os, socket, subprocess, sys


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


os.environ.update(
    EPICS_CA_ADDR_LIST="127.0.0.1", EPICS_CA_AUTO_ADDR_LIST="NO", EPICS_CA_SERVER_PORT=str(free_port()),
    EPICS_CA_REPEATER_PORT=str(free_port()), EPICS_CAS_INTF_ADDR_LIST="127.0.0.1",
    EPICS_CAS_BEACON_ADDR_LIST="127.0.0.1", EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
)

from importlib.metadata import version

RECORDS = """
record(mbbo, "DEPTH") { field(ZRST, "4") field(ONST, "8") field(TWST, "10") field(THST, "12") }
"""

IOC = """
import sys
from epicscorelibs import ioc
ioc.iocshRegisterCommon()
assert ioc.dbLoadDatabase(b"base.dbd", ioc.DEFAULT_DBD_PATH.encode(), None) == 0
assert ioc.registerRecordDeviceDriver(ioc.pdbbase) == 0
assert ioc.dbLoadRecords(sys.argv[1].encode(), b"") == 0
assert ioc.iocInit() == 0
print("running", flush=True)
sys.stdin.read()
"""
with open(sys.argv[1] + "/records.db", "w") as file:
    file.write(RECORDS)
ioc = subprocess.Popen([sys.executable, "-c", IOC, file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                       stderr=subprocess.DEVNULL, text=True)
assert any(line.strip() == "running" for line in ioc.stdout), "the IOC did not start"

import epics

print("epicscorelibs", version("epicscorelibs"), "pyepics", version("pyepics"))
pv = epics.PV("DEPTH", form="time")
seen = {}
try:
    assert pv.wait_for_connection(timeout=20)
    for value in ("10", "3", "12", 1, 10):
        done = pv.put(value, wait=True, timeout=20)
        number, text = pv.get(use_monitor=False, timeout=20), epics.caget("DEPTH", as_string=True, timeout=20)
        seen[value] = (done, number, pv.severity)
        print(f"put of {value!r:5} returns {done}: state number {number}, as text {text!r}, severity {pv.severity}")
finally:
    ioc.communicate(timeout=20)
assert seen == {"10": (1, 2, 0), "3": (1, 3, 0), "12": (1, 3, 0), 1: (1, 1, 0), 10: (1, 10, 0)}
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
