#!/usr/bin/env bash
# An image of one row, or of one pixel, loses a dimension in bsread: the header says shape [width,
# 1], the receiver hands out an array of one dimension (its way to make scalars of arrays of length
# 1 looks at the length of the first axis alone). One column keeps both dimensions. An array without
# elements arrives as None.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check psi-bsread==2.0.1 psi-mflow==1.0.0 pyzmq==27.3.0 lz4==4.4.5 bitshuffle==0.5.2 numpy==2.4.6
cat > "$folder/see.py" <<'PYTHON'
import logging, socket
from importlib.metadata import version

import numpy as np
from bsread.consts import PULL
from bsread.sender import Sender
from bsread.source import Source

logging.disable(logging.CRITICAL)
print("psi-bsread", version("psi-bsread"))
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
seen = {}
with (
    Sender(port=port, address="tcp://127.0.0.1", send_timeout=5000) as sender,
    Source(host="127.0.0.1", port=port, mode=PULL, receive_timeout=20000) as source,
):
    for shape in ((3, 4), (4, 1), (1, 4), (1, 1), (1,), (0, 4)):
        sender.send(data={"image": np.ones(shape, "u2")})
        announced = sender.data_header["channels"][0]["shape"]
        value = source.receive().data.data["image"].value
        seen[shape] = None if value is None else np.shape(value)
        print(f"sent {shape!s:8} announced as {announced!s:8} received {seen[shape]}")
assert seen == {(3, 4): (3, 4), (4, 1): (4, 1), (1, 4): (4,), (1, 1): (1,), (1,): (), (0, 4): None}
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
