#!/usr/bin/env bash
# scippnexus reads uint32 as int32 and uint64 as int64, and what does not fit becomes the largest
# that does: a masked pixel of a uint32 image (2**32 - 1) reads as 2**31 - 1, so a comparison with
# the mask's value finds none; a uint64 image id above 2**63 reads as 2**63 - 1. uint16 becomes
# int32, complete.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check scippnexus==26.1.1 scipp==26.8.0 h5py==3.16.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import sys
from importlib.metadata import version

import h5py
import numpy as np
import scippnexus

print("scippnexus", version("scippnexus"), "scipp", version("scipp"))
path = sys.argv[1] + "/image.nxs"
with h5py.File(path, "w") as file:
    entry = file.create_group("entry")
    entry.attrs["NX_class"] = "NXentry"
    for name, kind in (("pixels16", "u2"), ("pixels32", "u4"), ("ids", "u8")):
        data = entry.create_group(name)
        data.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["x"]})
        data["data"] = np.array([7, np.iinfo(kind).max], kind)
seen = {}
with scippnexus.File(path) as file:
    for name in ("pixels16", "pixels32", "ids"):
        values = file["entry"][name]["data"][...].values
        seen[name] = (str(values.dtype), values.tolist())
        print(f"{name}: {seen[name]}")
assert seen == {"pixels16": ("int32", [7, 2**16 - 1]), "pixels32": ("int32", [7, 2**31 - 1]),
                "ids": ("int64", [7, 2**63 - 1])}
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
