"""A GigaFRoST of another width or height than the config's, and senders that say less of it."""

from __future__ import annotations

import numpy as np
import pytest

from daq_core.receiving.strangers import sentences
from daq_core.ring.ring import GOOD, OTHER_FORMAT
from daq_core.ring.words import Word
from tests.assembly.assembler import Assembler
from tests.unit.test_detectors import camera, complete, gigafrost_datagram

CONFIG = camera(72, 264)  # 66 rows a link; more rows of a quadrant than fit into a byte when they are 264


def received(datagrams: list[list[bytes]], height: int = 264) -> Assembler:
    assembler = Assembler(camera(72, height), 8)
    assembler.arm()
    for port, of_port in enumerate(datagrams):
        assembler.receive_at(port, of_port)
    assembler.publish_ready(10**10)
    return assembler


def of(height: int, width: int = 72) -> list[list[bytes]]:
    return complete(camera(width, height), np.ones((height, width), np.uint16), 1)


def told(assembler: Assembler) -> list[str]:
    return list(sentences(assembler.config, assembler.layout, assembler.ring))


@pytest.mark.parametrize("height", [264, 520, 1008])
@pytest.mark.parametrize("swap", [0, 1])
def test_rows_of_the_config_are_good_whatever_the_swap_bit_and_the_correction(height: int, swap: int) -> None:
    datagrams = [
        [bytes((*one[:2], one[2] | swap, one[3] | 5 << 2, *one[4:])) for one in port] for port in of(height)
    ]
    assembler = received(datagrams, height)
    assert assembler.slot(0).status == GOOD
    assert assembler.words[Word.MALFORMED] == 0


def test_a_sender_that_leaves_the_rows_at_0_says_nothing_wrong() -> None:
    assembler = received([[bytes((*one[:2], 0, 0, *one[4:])) for one in port] for port in of(264)])
    assert assembler.slot(0).status == GOOD
    assert assembler.words[Word.MALFORMED] == 0


@pytest.mark.parametrize("height", [256, 268, 272, 520, 1008])
def test_an_image_of_another_height_is_no_image_and_is_named(height: int) -> None:
    """Also where the rows of the config are all there, as of one that is a little higher."""
    assembler = received(of(height))
    assert assembler.words[Word.OPENED] == 0
    (sentence,) = told(assembler)
    assert sentence == (
        f"UDP port 50000, module 0: an image {height} pixels high, image_pixel_height is 264; "
        "7 more ports alike"
    )


def test_an_image_of_another_width_is_no_image_and_is_named() -> None:
    assembler = received(of(264, 96))
    assert assembler.words[Word.OPENED] == 0
    assert "module 0: an image 96 pixels wide, image_pixel_width is 72" in told(assembler)[0]


def test_a_first_row_that_cannot_be_shows_that_the_image_has_another_format() -> None:
    """Of a sender that leaves the rows at 0."""
    assembler = received(of(264))
    assembler.receive_at(3, [gigafrost_datagram(CONFIG, 1, 66, bytes(54))])
    assert assembler.slot(0).status == OTHER_FORMAT
    (sentence,) = told(assembler)
    assert sentence == (
        "UDP port 50003, module 3: row 66, a link's frame has 66 in an image of 264 rows: "
        "is the camera's image higher?"
    )


def test_a_sender_of_another_protocol_is_named() -> None:
    datagrams = [[bytes((0xAB, *one[1:])) for one in port] for port in of(264)]
    assembler = received(datagrams)
    assert assembler.words[Word.OPENED] == 0
    assert "module 0: protocol 0xAB, a GigaFRoST's is 0xCB: another sender?" in told(assembler)[0]
