#!/usr/bin/env bash
# caproto's server does not know EPICS_CAS_SERVER_PORT, with which EPICS Base moves a server (and
# not its clients): it listens on EPICS_CA_SERVER_PORT all the same.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check caproto==1.3.0 epicscorelibs==7.0.10.99.0.2 setuptools==84.2.1 numpy==2.4.6
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

import time
from importlib.metadata import version

SERVER = """
import sys
from caproto.server import PVGroup, pvproperty, run

class Group(PVGroup):
    value = pvproperty(value=int(sys.argv[2]), name=sys.argv[1])

run(Group(prefix="").pvdb, interfaces=["127.0.0.1"], module_name="caproto.asyncio.server")
"""
READ = """
import sys
from caproto.sync.client import read
print(read(sys.argv[1], timeout=2, repeater=False).data[0])
"""


def serve(name, value):
    return subprocess.Popen([sys.executable, "-c", SERVER, name, str(value)], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def read(name, tries):
    for _ in range(tries):
        done = subprocess.run([sys.executable, "-c", READ, name], capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            return int(done.stdout)
    return None


print("caproto", version("caproto"))

from epicscorelibs import version as base

client_port, server_port = os.environ["EPICS_CA_SERVER_PORT"], str(free_port())
os.environ["EPICS_CAS_SERVER_PORT"] = server_port
with open(sys.argv[1] + "/records.db", "w") as file:
    file.write('record(longout, "BASE") { field(VAL, "2") }')
BASE = """
import sys
from epicscorelibs import ioc
ioc.iocshRegisterCommon()
assert ioc.dbLoadDatabase(b"base.dbd", ioc.DEFAULT_DBD_PATH.encode(), None) == 0
assert ioc.registerRecordDeviceDriver(ioc.pdbbase) == 0
assert ioc.dbLoadRecords(sys.argv[1].encode(), b"") == 0
assert ioc.iocInit() == 0
sys.stdin.read()
"""
ioc = subprocess.Popen([sys.executable, "-c", BASE, file.name], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
server = serve("CAPROTO", 1)
found = {}
try:
    for name in ("BASE", "CAPROTO"):
        for which, port in (("EPICS_CA_SERVER_PORT", client_port), ("EPICS_CAS_SERVER_PORT", server_port)):
            os.environ["EPICS_CA_SERVER_PORT"] = port
            expected = (name == "BASE") == (which == "EPICS_CAS_SERVER_PORT")
            found[name, which] = read(name, tries=10 if expected else 2)
            print(f"{name:8} at the port of {which:22}: {found[name, which]}")
finally:
    server.terminate()
    server.communicate(timeout=20)
    ioc.communicate(timeout=20)
assert [key for key, value in found.items() if value is not None] == [
    ("BASE", "EPICS_CAS_SERVER_PORT"), ("CAPROTO", "EPICS_CA_SERVER_PORT")]
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
