#!/usr/bin/env bash
# p4p's NTNDArray cannot hold a stack of grey images: it takes an array of three dimensions for one
# image in colour, refuses it unless a dimension has length 3 (by a TypeError of its own message's
# formatting), and calls a stack of 3 grey images (or of images 3 wide) RGB in the ColorMode that
# viewers go by. An attrib ColorMode on the array is the way out. numpy.longlong, which numpy calls
# int64 as well, is refused.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check p4p==4.3.0 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
from importlib.metadata import version

import numpy as np
from p4p.nt import NTNDArray

print("p4p", version("p4p"))
image = NTNDArray()


def color_mode(array):
    try:
        wrapped = image.wrap(array)
    except (KeyError, TypeError, ValueError) as error:
        return type(error).__name__
    return next(a.value for a in wrapped.attribute if a.name == "ColorMode")


seen = {}
for shape in ((4, 5), (1, 4, 5), (2, 4, 5), (3, 4, 5), (2, 4, 3)):
    seen[shape] = color_mode(np.zeros(shape, "u2"))
    print(f"{shape}: ColorMode {seen[shape]}")
assert seen == {(4, 5): 0, (1, 4, 5): "TypeError", (2, 4, 5): "TypeError", (3, 4, 5): 4, (2, 4, 3): 2}

wrapped = image.wrap(np.zeros((2, 4, 5), "u2"), attrib={"ColorMode": 0})
print("(2, 4, 5) with attrib ColorMode 0: dimensions", [d.size for d in wrapped.dimension])
assert [d.size for d in wrapped.dimension] == [5, 4, 2]

longlong = np.zeros((4, 5), np.longlong)
print(f"longlong: dtype {longlong.dtype}, {color_mode(longlong)}")
assert longlong.dtype == np.int64 and color_mode(longlong) == "KeyError"
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
