#!/usr/bin/env bash
# A file that is being written in SWMR mode is no valid file to readers which do not ask for SWMR:
# nexusformat says "already open for write" in both of its modes, r and rw; fabio says of the file
# that it reads once the writer is done that it could not identify it, not that it is being written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fabio==2026.6.0 nexusformat==2.1.0 h5py==3.16.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import logging, subprocess, sys
from importlib.metadata import version

WRITER = """
import sys
import h5py, numpy
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": "data"})
    data = entry.create_group("data")
    data.attrs.update({"NX_class": "NXdata", "signal": "data"})
    data.create_dataset("data", data=numpy.ones((3, 4, 5), "u4"), maxshape=(None, 4, 5), chunks=(1, 4, 5))
    file.swmr_mode = True
    print("live", flush=True)
    sys.stdin.read()
"""
logging.disable(logging.CRITICAL)
import fabio
import h5py
from nexusformat.nexus import nxload

print(*(f"{name} {version(name)}" for name in ("fabio", "nexusformat", "h5py")))
path = sys.argv[1] + "/run.h5"


def shapes():
    seen = {}
    for name, read in (
        ("h5py, swmr=True", lambda: h5py.File(path, "r", swmr=True)["entry/data/data"].shape[0]),
        ("nexusformat r", lambda: nxload(path, "r")["entry/data/data"].shape[0]),
        ("nexusformat rw", lambda: nxload(path, "rw")["entry/data/data"].shape[0]),
        ("fabio", lambda: fabio.open(path).nframes),
    ):
        try:
            seen[name] = read()
        except Exception as error:
            seen[name] = str(error)
        print(f"    {name}: {seen[name]}")
    return seen


writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True)
assert writer.stdout.readline().strip() == "live"
try:
    print("while it is written:")
    live = shapes()
finally:
    writer.communicate(timeout=20)
print("when it is closed:")
closed = shapes()
assert live["h5py, swmr=True"] == 3 and set(closed.values()) == {3}
assert "already open for write" in live["nexusformat r"] and "already open for write" in live["nexusformat rw"]
assert "could not identify" in live["fabio"]
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
