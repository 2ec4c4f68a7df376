#!/usr/bin/env bash
# pyepics caput() of a number that a 32-bit integer PV cannot hold says 1 (done) and stores another
# number: 3,000,000,000 arrives as -1294967296, 2**32 + 5 as 5. (aioca raises OverflowError.) A
# fraction is cut off towards 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyepics==3.5.10 aioca==2.1 epicscorelibs==7.0.10.99.0.2 setuptools==84.2.1 numpy==2.4.6
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

import asyncio
from importlib.metadata import version

RECORDS = 'record(longout, "COUNT") {}'

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

print("pyepics", version("pyepics"), "aioca", version("aioca"), "epicscorelibs", version("epicscorelibs"))
AIOCA = """
import asyncio, sys
from aioca import caput
asyncio.run(caput("COUNT", 3_000_000_000, wait=True, timeout=20))
"""
import epics

seen = {}
try:
    for value in (7, 3_000_000_000, 2**32 + 5, -1.9):
        done = epics.caput("COUNT", value, wait=True, timeout=20)
        seen[value] = (done, epics.caget("COUNT", timeout=20))
        print(f"pyepics: caput of {value} returns {done}; COUNT is {seen[value][1]}")
    other = subprocess.run([sys.executable, "-c", AIOCA], capture_output=True, text=True, timeout=60)
    said = next(line for line in other.stderr.splitlines() if "OverflowError" in line)
    print("aioca:", said)
finally:
    ioc.communicate(timeout=20)
assert seen == {7: (1, 7), 3_000_000_000: (1, -1294967296), 2**32 + 5: (1, 5), -1.9: (1, -1)}
assert other.returncode != 0
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
