"""Text for a descriptor that nobody reads: nobody waits for it, nothing grows, and what is lost is told."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterator

import pytest

from daq_core.linux.text_outlet import TextOutlet
from ioc.service.log_output import told_of_loss

LINE = "x" * 99 + "\n"
PIPE_BYTES = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):  # a test has closed it
            os.close(descriptor)


def read_until(reading: int, end: bytes) -> bytes:
    """Read until the text ends so; pytest's time limit is the patience."""
    text = b""
    while not text.endswith(end):
        text += os.read(reading, 1 << 16)
    return text


def test_lines_arrive_whole_and_in_order(pipe: tuple[int, int]) -> None:
    outlet = TextOutlet(pipe[1])
    for part in ("one ", "line\nano", "ther\n", "änd \udcff\n"):
        outlet.write(part)
    assert read_until(pipe[0], b"\\udcff\n") == "one line\nanother\nänd \\udcff\n".encode()


def test_a_line_without_an_end_is_written_at_the_last(pipe: tuple[int, int]) -> None:
    outlet = TextOutlet(pipe[1])
    outlet.write("the last words")
    assert outlet.drain(30)
    assert os.read(pipe[0], 100) == b"the last words"


def test_who_writes_does_not_wait_for_a_reader_and_the_queue_is_bounded(pipe: tuple[int, int]) -> None:
    outlet = TextOutlet(pipe[1], max_queued=10_000)
    for _ in range(10_000):  # a megabyte: without a queue the first 4 kB would be the last
        outlet.write(LINE)
    assert not outlet.drain(0.01)
    assert outlet.n_queued <= 10_000
    os.close(pipe[0])  # else its thread would go on, in a descriptor that is another test's by then
    assert outlet.drain(30)


def test_dropped_lines_are_counted_and_told_where_they_are_missing(pipe: tuple[int, int]) -> None:
    outlet = TextOutlet(pipe[1], "{} lost\n".format, max_queued=10_000)
    for _ in range(1000):
        outlet.write(LINE)
    said = read_until(pipe[0], b"lost\n").decode().splitlines()
    assert said[:-1] == [LINE.strip()] * (len(said) - 1)
    assert int(said[-1].split()[0]) + len(said) - 1 == 1000
    outlet.write("and on\n")
    assert read_until(pipe[0], b"\n") == b"and on\n"


def test_a_reader_that_is_gone_is_no_error(pipe: tuple[int, int]) -> None:
    outlet = TextOutlet(pipe[1])
    os.close(pipe[0])
    outlet.write("to nobody\n")
    assert outlet.drain(30)


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    outlet = TextOutlet(pipe[1])
    for _ in range(200):
        outlet.write(LINE)
    outlet.write("end\n")
    assert len(read_until(pipe[0], b"end\n")) == 200 * len(LINE) + 4


def test_a_stream_that_was_closed_at_the_start_takes_everything() -> None:
    outlet = TextOutlet.instead_of(None)
    outlet.write("to nobody\n")
    assert outlet.drain(30)
    os.close(outlet.fileno())


def test_a_forked_process_writes_its_own_lines_alone(pipe: tuple[int, int]) -> None:
    outlet = TextOutlet(pipe[1])
    for _ in range(100):  # more than the pipe holds
        outlet.write(LINE)
    reading, writing = os.pipe()
    outlet_of_child = TextOutlet(writing)
    n_threads = threading.active_count()
    assert n_threads > 1
    if (child := os.fork()) == 0:
        try:
            outlet_of_child.write(f"{outlet.n_queued} characters, {threading.active_count()} threads\n")
            outlet_of_child.drain(30)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert read_until(reading, b"\n") == b"0 characters, 1 threads\n"
    os.close(reading)
    os.close(writing)


def test_what_the_service_says_of_lost_lines_is_a_line_of_its_log() -> None:
    (line,) = told_of_loss(7).splitlines()
    assert line.endswith(
        " WARNING ioc.service.log_output: 7 log lines were dropped here: nobody read this output"
    )
