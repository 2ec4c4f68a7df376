#!/usr/bin/env bash
# fabio writes float images, such as converted Jungfrau ones, as CBF without an error, and as int32:
# the fraction is lost (1.75 becomes 1). Unsigned 32-bit pixels, the mask's value 2**32 - 1
# included, survive. A line of the log, "Defaulting type to int32", is the one sign.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check fabio==2026.6.0 h5py==3.16.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import logging, sys
from importlib.metadata import version

import numpy as np

logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="logged: %(levelname)s %(message)s")
import fabio

print("fabio", version("fabio"))
floats = np.array([[1.75, -2.5, 0.25, 1000.5]] * 4, "f4")
counts = np.array([[0, 7, 2**31, 2**32 - 1]] * 4, "u4")
seen = {}
for name, image in (("float32", floats), ("uint32", counts)):
    path = f"{sys.argv[1]}/{name}.cbf"
    fabio.cbfimage.cbfimage(data=image.copy()).write(path)
    back = fabio.open(path).data
    seen[name] = (str(back.dtype), back[0].tolist())
    print(f"{name}: written {image[0].tolist()}, read {seen[name]}")
assert seen == {"float32": ("int32", [1, -2, 0, 1000]), "uint32": ("uint32", [0, 7, 2**31, 2**32 - 1])}
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
