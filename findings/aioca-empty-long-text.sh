#!/usr/bin/env bash
# aioca's caget() of an lso record (a long text) that is empty, as it is after a start, raises
# IndexError: the record then has no elements. Waveforms without elements, of numbers or of texts,
# arrive as empty arrays.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aioca==2.1 epicscorelibs==7.0.10.99.0.2 numpy==2.4.6
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

RECORDS = """
record(waveform, "NUMBERS") { field(FTVL, "LONG") field(NELM, "5") }
record(waveform, "TEXTS") { field(FTVL, "STRING") field(NELM, "5") }
record(lso, "LONGTEXT") { field(SIZV, "100") }
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

from aioca import caget, purge_channel_caches

print("aioca", version("aioca"), "epicscorelibs", version("epicscorelibs"))
seen = {}


async def main():
    for name in ("NUMBERS", "TEXTS", "LONGTEXT"):
        try:
            value = await caget(name, timeout=20)
            seen[name] = list(value)
        except IndexError as error:
            seen[name] = repr(error)
        print(f"caget of {name}: {seen[name]}")
    purge_channel_caches()


try:
    asyncio.run(main())
finally:
    ioc.communicate(timeout=20)
assert seen["NUMBERS"] == [] and seen["TEXTS"] == [] and "IndexError" in seen["LONGTEXT"], seen
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
