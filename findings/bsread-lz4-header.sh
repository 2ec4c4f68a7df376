#!/usr/bin/env bash
# bsread's LZ4 writes the size before the data little-endian, whatever the array, but reads it in
# the byte order of the channel: a big-endian image of 2000 bytes that its own Sender sent with lz4
# is None at its own Source, whose log has a warning: the size, bytes swapped, is beyond 2 GiB. The
# other compression, bitshuffle_lz4, has its size big-endian always, and arrives.
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
from bsread.data.compression import LZ4, BitshuffleLZ4
from bsread.sender import Sender
from bsread.source import Source

logging.disable(logging.CRITICAL)
print("psi-bsread", version("psi-bsread"))
little = np.arange(1000, dtype="<u2").reshape(20, 50)  # 2000 bytes
big = little.astype(">u2")


def sent_and_received(image, compression):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with (
        Sender(port=port, address="tcp://127.0.0.1", data_compression=compression, send_timeout=5000) as sender,
        Source(host="127.0.0.1", port=port, mode=PULL, receive_timeout=20000) as source,
    ):
        sender.send(data={"image": image})
        return source.receive().data.data["image"].value


for name, codec in (("lz4", LZ4), ("bitshuffle_lz4", BitshuffleLZ4)):
    for order, image in (("little", little), ("big", big)):
        print(f"{name:15}{order:7}-endian image begins with {bytes(codec.pack_data(image, image.dtype)[:8]).hex()}")
assert LZ4.pack_data(little)[:4] == LZ4.pack_data(big)[:4] == (2000).to_bytes(4, "little")
assert BitshuffleLZ4.pack_data(little, "<u2")[:8] == (2000).to_bytes(8, "big")

arrived = {}
for compression in (None, "lz4", "bitshuffle_lz4"):
    for order, image in (("little", little), ("big", big)):
        value = sent_and_received(image, compression)
        arrived[compression, order] = value is not None and bool((value == image).all())
        print(f"{compression!s:15}{order:7}-endian: {'arrived' if arrived[compression, order] else repr(value)}")
assert [key for key, good in arrived.items() if not good] == [("lz4", "big")]
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
