"""A detector made of software: sends diffraction pictures as the packets of any detector there is.

The packets, or a stream's messages, are what the format's own ``pack`` makes. A
small cycle of pictures is rendered and packed once; before each is sent, its
headers get the next frame number. The pixels of an image follow from config,
seed and image id alone, so whoever receives them can compare every one with
:meth:`Simulator.image`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.assembling.placing import kernels_of
from daq_core.config import DaqConfig
from daq_core.detectors import DetectorFormat, Layout, format_of, is_stream
from daq_core.errors import InvalidRequest
from daq_core.receiving import stream_messages
from daq_core.receiving.stream_messages import MessageForm
from daq_core.simulating.fault_stage import ChaosStage, Image, SentPacket
from daq_core.simulating.faults import Chaos
from daq_core.simulating.picture import expose, mean_counts
from daq_core.simulating.sender import Burst, Sender, SendReport
from daq_core.simulating.stream_sender import StreamSender

CYCLES = (7, 5, 3, 2)
"""How many pictures before they repeat: a prime, so that what is left in a slot of a ring
of 8, 16 … is another picture than the one that comes next."""
MAX_CYCLE_BYTES = 256 * 2**20
ENDLESS = 2**62


class Simulator:
    """Sends the images of a config's detector over UDP, or those of bsread as ZeroMQ messages.

    Usage: ``Simulator(config).send(1000, rate_hz=100)``.

    Parameters
    ----------
    host : the receiver's name or IPv4 address; messages are sent at the config's own addresses
    port_offset : added to each port of the config
    seed : of the noise
    rows_per_packet : of a GigaFRoST, to imitate other senders than the camera
    unwanted : ids of images that a GigaFRoST marks as not to be stored
    wire : of bsread: which of its formats, compression and byte order; None: plain bsread
    chaos : what goes wrong on the way, of a detector that sends packets
    tell : with chaos, called with every packet when it goes out, or is lost

    Raises
    ------
    InvalidRequest
        The detector has packets of one size only, or so many rows do not fit; it has no such
        mark; it sends no messages; or it cannot have such a fault.
    """

    def __init__(
        self,
        config: DaqConfig,
        *,
        host: str = "127.0.0.1",
        port_offset: int = 0,
        seed: int = 0,
        rows_per_packet: int | None = None,
        unwanted: Container[int] = (),
        wire: MessageForm | None = None,
        chaos: Chaos | None = None,
        tell: Callable[[SentPacket], None] | None = None,
    ) -> None:
        self._config = config
        self.layout = _layout(config, rows_per_packet)
        self.ports = [port + port_offset for port in self.layout.udp_ports]
        self.addresses = [_moved(address, port_offset) for address in _stream_addresses(config)]
        self._host = host
        self._seed = seed
        if wire is not None and not is_stream(config):
            raise InvalidRequest(f"a detector of type {config.detector_type} sends packets, not messages.")
        self._wire = wire or MessageForm()
        ports = self.layout.ports
        n_packets = -(-ports["n_units"] // ports["units_per_packet"])
        image_bytes = int((n_packets * ports["datagram_bytes"]).sum()) or self.layout.image_bytes
        self.n_pictures = next((n for n in CYCLES if n * image_bytes <= MAX_CYCLE_BYTES), CYCLES[-1])
        self._unwanted = unwanted
        if unwanted and self._form.mark_unwanted is None:
            raise InvalidRequest(f"a detector of type {self._form.name} marks no image as not to be stored.")
        if chaos is not None and self.addresses:
            raise InvalidRequest("chaos is for detectors that send packets; a bsread camera sends messages.")
        self.chaos = ChaosStage(chaos, self._form, self.layout, tell) if chaos is not None else None
        self._foreign_address = chaos.foreign_address if chaos is not None and chaos.foreign else None
        self._mean = mean_counts(self.layout)
        self._is_sent = self._pixels_with_a_packet()
        self._cycle: dict[int, tuple[list[npt.NDArray[np.uint8]], Burst]] = {}
        self._data: dict[int, bytes] = {}

    @property
    def _form(self) -> DetectorFormat:
        """The format of the packets; InvalidRequest where there are none."""
        return format_of(self._config)

    def image(self, image_id: int) -> npt.NDArray[Any]:
        """Return (H, W), in the type of the ring: the pixels of an image as sent, gap pixels 0."""
        random = np.random.default_rng([self._seed, image_id % self.n_pictures])
        picture = expose(self._mean, self.layout, random)
        picture[~self._is_sent] = 0
        return picture

    def packets(self, image_id: int) -> list[npt.NDArray[np.uint8]]:
        """Return the datagrams of an image, (n, datagram_bytes) uint8 for each of `ports`.

        They are the caller's own: to permute, to lose and to send some of them twice.
        """
        packets = self._form.pack(self.image(image_id), self.layout, image_id)
        self._mark(packets, image_id)
        return packets

    def send(
        self,
        n_images: int,
        rate_hz: float,
        *,
        first_id: int = 1,
        progress: Callable[[int], None] | None = None,
        stop: threading.Event | None = None,
    ) -> SendReport:
        """Send images with rising ids; blocks, without the GIL while packets go out.

        Parameters
        ----------
        n_images : 0: until `stop` is set
        rate_hz : images a second; 0: as fast as possible
        first_id : frame number of the first; a Jungfrau's bunch id is the same, as float64
        progress : called with the number of images sent so far, after each
        stop : ends the sending after the present image when set

        Raises
        ------
        InvalidRequest
            A number is out of range.
        Unavailable
            The host is not known, the network does not take the packets, or an address is taken.
        """
        if n_images < 0 or first_id < 0:
            raise InvalidRequest(f"n_images and first_id must be 0 or more, got {n_images} and {first_id}.")
        ids = range(first_id, first_id + (n_images or ENDLESS))
        if self.addresses:
            return self._send_messages(ids, rate_hz, progress, stop)
        with Sender(self._host, self.ports, foreign_address=self._foreign_address) as sender:
            self._pack_cycle(ids)
            bursts = self._bursts(ids) if self.chaos is None else self.chaos.bursts(self._images(ids))
            return sender.send(bursts, rate_hz, progress=progress, stop=stop)

    def message(self, image_id: int) -> list[bytes]:
        """Return the parts of the message of a bsread image."""
        picture = image_id % self.n_pictures
        if picture not in self._data:
            self._data[picture] = stream_messages.compress(self.image(image_id), self._wire)
        return stream_messages.pack(self._data[picture], self.layout, image_id, self._wire)

    def _send_messages(
        self,
        ids: range,
        rate_hz: float,
        progress: Callable[[int], None] | None,
        stop: threading.Event | None,
    ) -> SendReport:
        for image_id in ids[: self.n_pictures]:
            self.message(image_id)
        with StreamSender(self.addresses, self._config.stream_socket) as sender:
            return sender.send(map(self.message, ids), rate_hz, progress=progress, stop=stop)

    def _pack_cycle(self, ids: Iterable[int]) -> None:
        """Render before the first image goes out: it takes longer than a period."""
        for image_id in itertools.islice(ids, self._cycle_length):
            if image_id % self._cycle_length not in self._cycle:
                packets = self.packets(image_id)
                lengths = list(map(self._form.lengths, packets, self.layout.ports))
                self._cycle[image_id % self._cycle_length] = packets, Burst.of_packets(packets, lengths)

    @property
    def _cycle_length(self) -> int:
        """Images until the same picture goes to the same ports."""
        return self.n_pictures * self.layout.turns

    def _bursts(self, ids: Iterable[int]) -> Iterator[Burst]:
        for image_id in ids:
            packets, burst = self._cycle[image_id % self._cycle_length]
            for datagrams in packets:
                self._form.stamp(datagrams, image_id)
            self._mark(packets, image_id)
            yield burst

    def _images(self, ids: range) -> Iterator[Image]:
        """Yield images for the chaos stage; the memory of one is that of another a few images later."""
        assert self.chaos is not None
        for image_id in ids:
            packets, _ = self._cycle[image_id % self._cycle_length]
            frame = self.chaos.frame_of(image_id, is_first=image_id == ids[0])
            for datagrams in packets:
                self._form.stamp(datagrams, frame)
            self._mark(packets, image_id)
            yield image_id, frame, packets, list(map(self._form.lengths, packets, self.layout.ports))

    def _mark(self, packets: list[npt.NDArray[np.uint8]], image_id: int) -> None:
        """Mark the datagrams of an image that is not to be stored, and unmark those of the others."""
        if self._form.mark_unwanted is not None:
            for datagrams in packets:
                self._form.mark_unwanted(datagrams, image_id in self._unwanted)

    def _pixels_with_a_packet(self) -> npt.NDArray[np.bool_]:
        """Return (H, W) bool: the pixels that ``erase`` clears when every packet is missing."""
        if self.addresses:
            return np.full(self.layout.image_shape, True)
        pixels = np.full(self.layout.image_shape, 1, self.layout.ring_dtype)
        flat = pixels.view(np.uint8).reshape(-1)
        erase = kernels_of(self._config).erase
        for port, here in enumerate(self.layout.ports):
            for unit in range(here.n_units):
                erase(self.layout.ports, port, unit, flat)
        return np.equal(pixels, 0)


def _layout(config: DaqConfig, rows_per_packet: int | None) -> Layout:
    layout = config.layout
    if rows_per_packet is None:
        return layout
    form = format_of(config)
    if form.packetised is None:
        raise InvalidRequest(f"every sender of type {form.name} has packets of the same size.")
    try:
        return form.packetised(layout, rows_per_packet)
    except ValueError as error:
        raise InvalidRequest(f"{error}.") from None


def _stream_addresses(config: DaqConfig) -> list[str]:
    return config.stream_addresses if is_stream(config) else []


def _moved(address: str, port_offset: int) -> str:
    host, _, port = address.rpartition(":")
    if not 1 <= int(port) + port_offset <= 65535:
        raise InvalidRequest(f"port {int(port) + port_offset} is not in 1..65535; see the port offset.")
    return f"{host}:{int(port) + port_offset}"
