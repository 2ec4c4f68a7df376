"""The compiled look at the senders against a plain list of Python: the same datagrams are left, in order."""

from __future__ import annotations

import ipaddress
import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daq_core.assembling.signatures import Batch
from daq_core.linux.network import is_in
from daq_core.linux.sockets import MESSAGE_LENGTH, DatagramBatch
from daq_core.receiving.senders import NAME_ADDRESS, Senders, allowed_senders, drop_foreign, name_senders
from daq_core.ring.ring import RingShape
from daq_core.ring.words import Word

BATCH = 8
ADDRESSES = st.sampled_from(
    ["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.255.0.0", "192.168.7.7", "255.255.255.255"]
)
NETWORKS = st.sampled_from(["10.0.0.1/32", "10.0.0.0/24", "10.0.0.0/8", "192.168.0.0/16", "0.0.0.0/0"])


@given(senders=st.lists(ADDRESSES, max_size=BATCH), allowed=st.lists(NETWORKS, min_size=1, max_size=3))
def test_what_allowed_senders_sent_is_left_in_order_and_the_rest_is_counted(
    senders: list[str], allowed: list[str]
) -> None:
    networks = [ipaddress.ip_network(text) for text in allowed]
    shape = RingShape(8, 1, 1, 4096)
    descriptor = shape.create()
    ring = shape.attach(descriptor)
    os.close(descriptor)
    batch = DatagramBatch(BATCH, 100)
    names = name_senders(batch.messages, wanted=True)
    rows = batch.datagrams[: BATCH * batch.stride].reshape(BATCH, batch.stride)
    for i, sender in enumerate(senders):
        names[i, NAME_ADDRESS] = np.frombuffer(ipaddress.ip_address(sender).packed, np.uint32)[0]
        rows[i] = i + 1
        batch.messages[i, MESSAGE_LENGTH] = 50 + i
    received = Batch(batch.datagrams, batch.stride, batch.messages, np.zeros((BATCH, 2), np.int64))
    n = drop_foreign(Senders(names, allowed_senders(networks)), received, len(senders), ring)
    kept = [i for i, sender in enumerate(senders) if is_in(sender, networks)]
    assert n == len(kept)
    assert batch.messages[:n, MESSAGE_LENGTH].tolist() == [50 + i for i in kept]
    assert [set(row) for row in rows[:n].tolist()] == [{i + 1} for i in kept]
    assert ring.words[Word.FOREIGN] == ring.words[Word.RECEIVED] == len(senders) - len(kept)


def test_without_a_list_the_kernel_is_not_asked_for_senders() -> None:
    batch = DatagramBatch(BATCH, 100)
    before = batch.messages.copy()
    assert name_senders(batch.messages, wanted=False).shape[0] == 0
    assert (batch.messages == before).all()
