"""Reading the ring's counters: what is shown as counters, losses and rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daq_core.linux.sockets import BUFFER_BYTES
from daq_core.receiving.steps import out_of_step
from daq_core.receiving.strangers import sentences
from daq_core.ring.words import WRITER_WORDS, SocketState, Word, words_of
from daq_core.state.losses import Losses
from daq_core.state.status import Counters, DaqStats, Rate

if TYPE_CHECKING:
    from daq_core.pipeline.pipeline import Pipeline


FULL = 0.7  # of the ring; the alarm of its PV begins there too


def read_counters(pipeline: Pipeline) -> Counters:
    """Return everything the receiver counted since the service was started."""
    words = pipeline.words[: Word.COUNT].tolist()
    return Counters(
        packets_received=words[Word.RECEIVED],
        packets_placed=words[Word.PLACED],
        packets_duplicate=words[Word.DUPLICATE],
        packets_late=words[Word.LATE],
        packets_foreign=words[Word.FOREIGN],
        packets_malformed=words[Word.MALFORMED],
        packets_dropped=words[Word.UNPLACED],
        kernel_drops=words[Word.KERNEL_DROPS],
        kernel_drops_by_port=tuple(pipeline.ring.sockets[:, SocketState.DROPS].tolist()),
        socket_used_percent=_fullest_percent(pipeline, SocketState.USED),
        socket_peak_percent=_fullest_percent(pipeline, SocketState.PEAK),
        images_published=words[Word.IMAGES_PUBLISHED],
        missing_packets=words[Word.MISSING],
        incomplete_images=words[Word.INCOMPLETE_IMAGES],
        dropped_images=words[Word.DROPPED_IMAGES],
        id_restarts=words[Word.RESTARTS],
        ring_slots=pipeline.shape.n_slots,
        ring_used=_slots_in_use(words),
        ring_high_water=words[Word.RUN_HIGH_WATER],
        socket_buffer_bytes=words[Word.SOCKET_BUFFER],
        last_image_id=words[Word.LAST_IMAGE_ID] % 2**64 if words[Word.IMAGES_PUBLISHED] else None,
        last_image_time=_newest_image_time(pipeline, words[Word.PUBLISHED]),
        write_latency_s=max(_of_writers(words, Word.LATENCY_NS)) / 1e9,
    )


def _newest_image_time(pipeline: Pipeline, published: int) -> float | None:
    """Return when the first packet of the newest published image came, in Unix seconds."""
    if published == 0:
        return None
    return int(pipeline.ring.slots["first_ns"][(published - 1) % pipeline.shape.n_slots]) / 1e9


def _of_writers(words: list[int], index: int) -> list[int]:
    """``ring.words_of`` of a copy."""
    return words[index : index + max(1, words[Word.N_WRITERS]) * WRITER_WORDS : WRITER_WORDS]


def _fullest_percent(pipeline: Pipeline, column: int) -> float:
    """Return how full the fullest port's socket buffer is, or was; a datagram may go beyond the size."""
    sockets = pipeline.ring.sockets
    sizes = sockets[:, SocketState.SIZE].clip(min=1)
    return float((100 * sockets[:, column] / sizes).clip(max=100).max(initial=0.0))


def _slots_in_use(words: list[int]) -> int:
    """Count slots that are open, or wait for the writer; see ``assembly.floor``."""
    if words[Word.WRITER_DONE] >= words[Word.RUN_EPOCH]:
        oldest = words[Word.PUBLISHED]
    else:
        oldest = max(words[Word.RUN_FIRST], min(_of_writers(words, Word.CONSUMED)))
    return max(0, words[Word.OPENED] - oldest)


def read_losses(pipeline: Pipeline) -> Losses:
    """Return what is missing in the present or last run."""
    words = pipeline.words
    if words[Word.RUN_EPOCH] == 0:
        return Losses()
    packets = pipeline.ring.module_packets
    silent = [module for module, n in zip(pipeline.layout.modules, packets, strict=True) if n == 0]
    heard = len(silent) < len(packets)
    n_given_up = int(words_of(words, Word.GIVEN_UP).sum())
    return Losses(
        missing_packets=int(words[Word.RUN_MISSING]),
        incomplete_images=int(words[Word.RUN_INCOMPLETE]),
        sparse_images=int(words[Word.RUN_SPARSE]),
        dropped_images=int(words[Word.RUN_DROPPED]) + n_given_up,
        given_up_images=n_given_up,
        mismatched_images=int(words[Word.RUN_MISMATCHED]),
        other_format_images=int(words[Word.RUN_OTHER_FORMAT]),
        not_good_images=int(words[Word.RUN_NOT_GOOD]),
        invalid_pixels=int(words_of(words, Word.INVALID_PIXELS).sum()),
        silent_modules=tuple(silent) if heard and words[Word.RUN_KEPT] + words[Word.RUN_DROPPED] > 0 else (),
    )


def read_warnings(pipeline: Pipeline, losses: Losses) -> list[str]:
    """Return, in sentences, what a person should know of the receiver although everything works."""
    warnings = []
    granted = int(pipeline.words[Word.SOCKET_BUFFER])
    if 0 < granted < BUFFER_BYTES:
        warnings.append(
            f"the receive buffer of each UDP port has {granted / 2**20:.1f} MiB instead of "
            f"{BUFFER_BYTES / 2**20:.0f}: raise net.core.rmem_max, or grant CAP_NET_ADMIN"
        )
    if _slots_in_use(pipeline.words[: Word.COUNT].tolist()) >= FULL * pipeline.shape.n_slots:
        warnings.append(
            "the image ring is nearly full: writing does not keep up with the detector, and when it is full "
            "new images are dropped; see compression, number_of_writers and ram_buffer_gb in the config"
        )
    if losses.silent_modules:
        modules = ", ".join(map(str, losses.silent_modules))
        warnings.append(f"nothing arrives from module {modules} while others send: check cable and UDP port")
    warnings += sentences(pipeline.config, pipeline.layout, pipeline.ring)
    if len(pipeline.layout.ports):
        window = pipeline.config.window(pipeline.shape.n_slots)
        warnings += out_of_step(pipeline.ring.arms, pipeline.layout.ports["module"], window)
    if losses.sparse_images:
        warnings.append(
            f"images of the run that hold less than half of their packets: {losses.sparse_images}; "
            "are they of stray packets, or is the detector not the config's?"
        )
    return warnings


@dataclass
class Meter:
    """Rates over the time since they were last asked for; the caller asks once a second."""

    n_written: int = 0  # images visible in files, since start; the caller adds to it
    _time: float = 0.0
    _published_then: int = 0
    _written_then: int = 0

    def rates(self, pipeline: Pipeline, now: float) -> DaqStats:
        """Return the rates since the last call; `now` is monotonic seconds."""
        published = int(pipeline.words[Word.IMAGES_PUBLISHED])
        elapsed, first = now - self._time, self._time == 0.0
        n_published = published - self._published_then
        n_written = self.n_written - self._written_then
        self._time, self._published_then, self._written_then = now, published, self.n_written
        if first or elapsed <= 0:
            return DaqStats()
        image_bytes = pipeline.layout.image_bytes
        return DaqStats(
            detector=Rate(n_published * image_bytes / elapsed, n_published / elapsed),
            writer=Rate(n_written * image_bytes / elapsed, n_written / elapsed),
        )
