"""A detector made of software: sends diffraction pictures as the packets of any detector there is.

The packets are what the format's own ``pack`` makes. A small cycle of pictures
is rendered and packed once; before each is sent, its headers get the next frame
number. The pixels of an image follow from config, seed and image id alone, so
whoever receives them can compare every one with :meth:`Simulator.image`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from daq_core.config import DaqConfig
from daq_core.detectors import format_of, layout_of
from daq_core.errors import InvalidRequest
from daq_core.picture import diffraction_rings, expose
from daq_core.sender import Burst, Sender, SendReport

CYCLES = (7, 5, 3, 2)
"""How many pictures before they repeat: a prime, so that what is left in a slot of a ring
of 8, 16 … is another picture than the one that comes next."""
MAX_CYCLE_BYTES = 256 * 2**20
ENDLESS = 2**62


class Simulator:
    """Sends the images of a config's detector over UDP.

    Usage: ``Simulator(config).send(1000, rate_hz=100)``.

    Parameters
    ----------
    host : the receiver's name or IPv4 address
    port_offset : added to each UDP port of the config
    seed : of the noise
    """

    def __init__(
        self, config: DaqConfig, *, host: str = "127.0.0.1", port_offset: int = 0, seed: int = 0
    ) -> None:
        self.layout = layout_of(config)
        self.ports = [port + port_offset for port in self.layout.udp_ports]
        self._form = format_of(config)
        self._host = host
        self._seed = seed
        image_bytes = int((self.layout.ports["n_units"] * self.layout.ports["datagram_bytes"]).sum())
        self.n_pictures = next((n for n in CYCLES if n * image_bytes <= MAX_CYCLE_BYTES), CYCLES[-1])
        self._mean = diffraction_rings(self.layout.image_shape, self.layout.dtype)
        self._is_sent = self._pixels_with_a_packet()
        self._cycle: dict[int, tuple[list[npt.NDArray[np.uint8]], Burst]] = {}

    def image(self, image_id: int) -> npt.NDArray[Any]:
        """Return (H, W), in the type of the file: the pixels of an image, gap pixels 0."""
        random = np.random.default_rng([self._seed, image_id % self.n_pictures])
        picture = expose(self._mean, self.layout.dtype, random)
        picture[~self._is_sent] = 0
        return picture

    def packets(self, image_id: int) -> list[npt.NDArray[np.uint8]]:
        """Return the datagrams of an image, (n, datagram_bytes) uint8 for each of `ports`.

        They are the caller's own: to permute, to lose and to send some of them twice.
        """
        return self._form.pack(self.image(image_id), self.layout, image_id)

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
            The host is not known, or the network does not take the packets.
        """
        if n_images < 0 or first_id < 0:
            raise InvalidRequest(f"n_images and first_id must be 0 or more, got {n_images} and {first_id}.")
        ids = range(first_id, first_id + (n_images or ENDLESS))
        with Sender(self._host, self.ports) as sender:
            self._pack_cycle(ids)
            return sender.send(self._bursts(ids), rate_hz, progress=progress, stop=stop)

    def _pack_cycle(self, ids: Iterable[int]) -> None:
        """Render before the first image goes out: it takes longer than a period."""
        for image_id in itertools.islice(ids, self.n_pictures):
            picture = image_id % self.n_pictures
            if picture not in self._cycle:
                packets = self.packets(image_id)
                self._cycle[picture] = packets, Burst.of_packets(packets)

    def _bursts(self, ids: Iterable[int]) -> Iterator[Burst]:
        for image_id in ids:
            packets, burst = self._cycle[image_id % self.n_pictures]
            for datagrams in packets:
                self._form.stamp(datagrams, image_id)
            yield burst

    def _pixels_with_a_packet(self) -> npt.NDArray[np.bool_]:
        """Return (H, W) bool: the pixels that ``erase`` clears when every packet is missing."""
        pixels = np.full(self.layout.image_shape, 1, self.layout.dtype)
        flat = pixels.view(np.uint8).reshape(-1)
        for port, here in enumerate(self.layout.ports):
            for unit in range(here.n_units):
                self._form.erase(self.layout.ports, port, unit, flat)
        return np.equal(pixels, 0)
