#!/usr/bin/env bash
# caproto.sync.client.write() with notify=True does not raise when the server refuses the put: it
# returns an answer like that of a good one, whose status must be looked at. A text of more than 39
# bytes is cut without a word. (Server: EPICS Base.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check caproto==1.3.0 epicscorelibs==7.0.10.99.0.2 numpy==2.4.6
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
record(mbbo, "MODE") { field(ZRST, "Trigger") field(ONST, "Burst") field(VAL, "1") field(PINI, "YES") }
record(stringout, "TEXT") {}
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

from caproto.sync.client import read, write

print("caproto", version("caproto"), "epicscorelibs", version("epicscorelibs"))


def put(name, value):
    answer = write(name, value, notify=True, timeout=20, repeater=False)
    after = read(name, timeout=20, repeater=False, data_type="native").data[0]
    print(f"put of {value!r} to {name}: {type(answer).__name__}, status {answer.status.name}; value then: {after}")
    return answer.status.name, after


try:
    good, refused, cut = put("MODE", "Trigger"), put("MODE", "Sweep"), put("TEXT", "a" * 30 + "b" * 30)
finally:
    ioc.communicate(timeout=20)
assert good == ("ECA_NORMAL", 0)
assert refused == ("ECA_PUTFAIL", 0)
assert cut == ("ECA_NORMAL", b"a" * 30 + b"b" * 9)
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
