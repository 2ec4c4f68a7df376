#!/usr/bin/env bash
# A put with completion to a softioc (pythonSoftIOC) record tells nothing about its handlers: it
# completes with success, and without an alarm, when on_update raises, and when validate refuses
# (the old value stays). A validate that itself raises lets the value in.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check softioc==4.7.2 aioca==2.1 epicscorelibs==7.0.10.99.0.2 numpy==2.4.6
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

IOC = """
import os, sys
from softioc import asyncio_dispatcher, builder, softioc

def raises(*_):
    raise ValueError("not that")

dispatcher = asyncio_dispatcher.AsyncioDispatcher()
builder.SetDeviceName("S")
builder.longOut("UPDATE:RAISES", initial_value=5, on_update=raises)
builder.longOut("VALIDATE:REFUSES", initial_value=5, validate=lambda record, value: False)
builder.longOut("VALIDATE:RAISES", initial_value=5, validate=raises)
builder.LoadDatabase()
softioc.iocInit(dispatcher, enable_pva=False)
print("running", flush=True)
sys.stdin.read()
os._exit(0)
"""
print("softioc", version("softioc"))
ioc = subprocess.Popen([sys.executable, "-c", IOC], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                       stderr=subprocess.DEVNULL, text=True)
assert any(line.strip() == "running" for line in ioc.stdout), "the IOC did not start"
from aioca import FORMAT_TIME, caget, caput, purge_channel_caches

seen = {}


async def main():
    for name in ("UPDATE:RAISES", "VALIDATE:REFUSES", "VALIDATE:RAISES"):
        put = await caput(f"S:{name}", 7, wait=True, timeout=20)
        after = await caget(f"S:{name}", format=FORMAT_TIME, timeout=20)
        seen[name] = (put.ok, int(after), after.severity)
        print(f"{name:17} put of 7 ok: {put.ok}, then the value is {int(after)}, severity {after.severity}")
    purge_channel_caches()


try:
    asyncio.run(main())
finally:
    ioc.communicate(timeout=20)
assert seen == {"UPDATE:RAISES": (True, 7, 0), "VALIDATE:REFUSES": (True, 5, 0), "VALIDATE:RAISES": (True, 7, 0)}
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
