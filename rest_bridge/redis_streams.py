"""Publishes what the DAQ says of itself to std_daq's Redis streams, without ever making it wait.

A listener turns each snapshot into entries and puts them into bounded queues; a
task sends them. When Redis is away or slow the queues grow to their bound, then
the oldest entry is dropped and counted; what is left is sent, in order, when it
is back. An entry whose fate is unknown (the connection broke meanwhile) is sent
again: readers may see it twice, never out of order. A server of our own that has not taken
everything for ``RENEW_AFTER_S`` is started again: somebody has made it useless, for good perhaps.

===================================  ==============================================
``daq:status``, ``daq:writer_status``  the status, on every change and at 1 Hz
``daq:stat``                           the throughput, at 1 Hz
``daq:config``                         the detector config, on change and at start
``daq:log``                            each acquisition that ended with a file; those of the
                                       journal, when Redis has none
===================================  ==============================================

Source: README of std_daq_client 1.3.5 (streams, field ``json``); its example
reads ``daq:writer_status``, so both names get the same entries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout

from daq_core.showing.feed import Feed
from daq_core.state.status import Acquisition, DaqStatus, Snapshot
from rest_bridge import models
from rest_bridge.redis_url import checked_url, place_of

if TYPE_CHECKING:
    from daq_core.control.door import Door

log = logging.getLogger(__name__)

PREFIX = "daq"
STATUS, WRITER_STATUS = f"{PREFIX}:status", f"{PREFIX}:writer_status"
CONFIG, LOG, STAT = f"{PREFIX}:config", f"{PREFIX}:log", f"{PREFIX}:stat"
FIELD = "json"

MAX_LENGTH = {STATUS: 10_000, WRITER_STATUS: 10_000, STAT: 10_000, CONFIG: 1000, LOG: 1000}
"""Entries a stream is trimmed to, roughly: Redis drops whole blocks of 100."""
MAX_QUEUED = 5000  # entries waiting for Redis; the log has a queue of its own, so it is not pushed out
MAX_QUEUED_LOGS = 1000
BATCH = 200  # entries sent at once
BEAT_S = 0.95  # a little less than the DAQ's heartbeat, so that none is left out
TIMEOUT_S = 5.0
BACKOFF_S = (0.2, 5.0)  # first and longest pause between attempts to connect
ID_TOO_SMALL = "equal or smaller than the target stream top item"
RENEW_AFTER_S = 15.0  # longer than a process stands still that somebody has stopped for a moment
LAST_WORDS_S = 1.0  # for what is queued when the service ends


@dataclass(frozen=True)
class Entry:
    """One entry of one stream, as JSON."""

    stream: str
    json: bytes
    entry_id: str = "*"  # "*": Redis chooses


class RedisPublisher:
    """Usage: ``task = asyncio.create_task(RedisPublisher(daq, url).run())``.

    Attributes
    ----------
    place : str                host and port, without user and password
    connected : bool           Redis took the last entries
    latency_s : float | None   time the last batch took; None while not connected
    dropped : int              entries given up since start: queue full, or their key is no stream
    trouble : str              what is wrong, for people; empty when nothing is
    """

    def __init__(self, daq: Door, url: str, renew: Callable[[], None] | None = None) -> None:
        """Prepare to publish to ``redis://[user:password@]host:port/db``, or ``host:port``.

        `renew` has a server of our own started again.

        Raises
        ------
        Unavailable
            The URL cannot be understood.
        """
        self._daq = daq
        self._url = checked_url(url)
        self.place = place_of(self._url)
        self.connected = False
        self.latency_s: float | None = None
        self.dropped = 0
        self.trouble = "not connected yet"
        self._renew = renew
        self._whole_at_s = 0.0  # by the loop's clock: when the server last took everything
        self._entries: Feed[Entry] = Feed()
        self._logs: Feed[Entry] = Feed()
        self._unanswered: list[Entry] = []
        self._waiting = asyncio.Event()
        self._no_streams: set[str] = set()  # names that hold something else in this Redis
        self._status: DaqStatus | None = None
        self._config_id = ""
        self._log_total = 0
        self._beat = 0.0

    @property
    def n_queued(self) -> int:
        """Entries that Redis has not confirmed yet."""
        return len(self._unanswered) + len(self._entries) + len(self._logs)

    async def run(self) -> None:
        """Publish until cancelled; trouble with Redis shows in the attributes and the log, never raises."""
        self._whole_at_s = asyncio.get_running_loop().time()
        now = self._daq.snapshot
        self._status, self._config_id, self._log_total = now.status, now.config_id, now.log_total
        unsubscribe = self._daq.subscribe(self._take)
        try:
            await self._stay_connected()
        finally:
            unsubscribe()
            await self._send_last_words()

    # ------------------------------------------------- snapshots into the queue

    def _take(self, snapshot: Snapshot) -> None:
        """Queue what is new in a snapshot; called in the loop for each, so it only appends."""
        now = asyncio.get_running_loop().time()
        beat = self.connected and now - self._beat >= BEAT_S
        if beat:
            self._beat = now
            self._queue(Entry(STAT, models.Stats.of(snapshot.stats).as_json()))
        if beat or snapshot.status != self._status:
            self._queue_status(snapshot.status)
        if snapshot.config_id != self._config_id:
            self._queue_config(snapshot)
        for ended in models.finished(self._newly_ended(snapshot)):
            self.dropped += self._logs.put(Entry(LOG, ended.as_json()), MAX_QUEUED_LOGS)
        self._waiting.set()

    def _queue(self, entry: Entry) -> None:
        self.dropped += self._entries.put(entry, MAX_QUEUED)

    def _queue_status(self, status: DaqStatus) -> None:
        self._status = status
        json = models.WriterStatus.of(status).as_json()
        self._queue(Entry(STATUS, json))
        self._queue(Entry(WRITER_STATUS, json))

    def _queue_config(self, snapshot: Snapshot) -> None:
        self._config_id = snapshot.config_id
        self._queue(Entry(CONFIG, models.to_json(snapshot.config.as_dict()), snapshot.config_id))

    def _newly_ended(self, snapshot: Snapshot) -> tuple[Acquisition, ...]:
        """Return the acquisitions that ended since the snapshot before, oldest first."""
        n = snapshot.log_total - self._log_total
        self._log_total = snapshot.log_total
        return tuple(reversed(snapshot.log[:n])) if n > 0 else ()

    # ------------------------------------------------------ the queue into Redis

    async def _stay_connected(self) -> None:
        """Send until something fails, pause a little longer each time, try again."""
        pause_s = BACKOFF_S[0]
        while True:
            try:
                async with self._connection() as client:
                    async with asyncio.timeout(TIMEOUT_S):
                        await self._fill_log(client)
                    await self._send_queued(client)  # before what is true now: in order
                    self._begin()
                    await self._send_queued(client)
                    pause_s = BACKOFF_S[0]
                    while True:
                        await self._waiting.wait()
                        self._waiting.clear()
                        await self._send_queued(client)
            except (RedisError, OSError) as error:
                self._tell(connected=False, trouble=_reason(error))
            except Exception as error:
                log.exception("publishing to Redis went wrong")
                self._tell(connected=False, trouble=f"internal error {error!r}")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_S[1])

    async def _send_last_words(self) -> None:
        """Send what is queued when the service ends, such as the end of the run it closed."""
        if self.connected:
            with contextlib.suppress(RedisError, OSError):  # a time-out is an OSError
                async with asyncio.timeout(LAST_WORDS_S), self._connection() as client:
                    await self._send_queued(client)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[redis.Redis]:
        client = redis.Redis.from_url(
            self._url,
            socket_timeout=None,  # else redis sends under Python 3.11's wait_for, which loses cancellations
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),  # the loop above is the retry
        )
        try:
            yield client
        finally:
            with contextlib.suppress(RedisError, OSError):
                await client.aclose()

    async def _fill_log(self, client: redis.Redis) -> None:
        """Give a Redis without a log, a new one or one that came back empty, what the journal has."""
        if await client.exists(LOG):
            return
        self._unanswered = [entry for entry in self._unanswered if entry.stream != LOG]
        oldest_first = tuple(reversed(self._daq.snapshot.log))
        self._logs = Feed(Entry(LOG, entry.as_json()) for entry in models.finished(oldest_first))

    def _begin(self) -> None:
        """Queue the present status and config, so that a Redis that came back empty has them."""
        self._queue_config(self._daq.snapshot)
        self._queue_status(self._daq.snapshot.status)

    async def _send_queued(self, client: redis.Redis) -> None:
        loop = asyncio.get_running_loop()
        while self._take_batch():
            began = loop.time()
            async with asyncio.timeout(TIMEOUT_S):
                await self._send_batch(client)
            self.latency_s = loop.time() - began

    def _take_batch(self) -> bool:
        """Move the oldest entries out of the queues, unless some still wait for Redis' answer."""
        if not self._unanswered:
            queue = self._entries or self._logs
            self._unanswered = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
        return bool(self._unanswered)

    async def _send_batch(self, client: redis.Redis) -> None:
        """Send entries in one go; those that Redis could not take stay for the next time, in order."""
        batch, kept = self._unanswered, []
        pipeline = client.pipeline(transaction=False)
        for entry in batch:
            length = MAX_LENGTH[entry.stream]
            pipeline.xadd(entry.stream, {FIELD: entry.json}, id=entry.entry_id, maxlen=length)
        failure: ResponseError | None = None
        for entry, answer in zip(batch, await pipeline.execute(raise_on_error=False), strict=True):
            if not isinstance(answer, ResponseError):
                self._no_streams.discard(entry.stream)
            elif "WRONGTYPE" in str(answer):
                self._no_streams.add(entry.stream)
                self.dropped += 1
            elif ID_TOO_SMALL in str(answer):
                kept += await self._renamed(client, entry)
            else:
                failure = answer
                kept.append(entry)
        self._unanswered = kept
        if failure is not None:
            raise failure
        self._tell(connected=True)

    async def _renamed(self, client: redis.Redis, entry: Entry) -> list[Entry]:
        """Give an entry an id by Redis, when the stream has a later one; none when it is there already."""
        newest = await client.xrevrange(entry.stream, count=1)
        if newest and newest[0][1] == {FIELD.encode(): entry.json}:
            return []
        log.info("%s has entries later than %s: Redis chooses the id", entry.stream, entry.entry_id)
        return [Entry(entry.stream, entry.json)]

    def _tell(self, *, connected: bool, trouble: str = "") -> None:
        """Show how publishing goes; a change of that is one line in the log."""
        if not trouble and self._no_streams:
            names = " and ".join(sorted(self._no_streams))
            trouble = f"{names} is no stream there: delete or rename that key"
        if trouble != self.trouble:
            if trouble:
                log.error("Redis at %s: %s", self.place, trouble)
            else:
                log.info("publishing to Redis at %s", self.place)
        self.connected, self.trouble = connected, trouble
        if not connected:
            self.latency_s = None
        now_s = asyncio.get_running_loop().time()
        if not trouble:
            self._whole_at_s = now_s
        elif self._renew is not None and now_s - self._whole_at_s > RENEW_AFTER_S:
            log.error("Redis at %s is ours and of no use for %g s: started again", self.place, RENEW_AFTER_S)
            self._renew()
            self._whole_at_s = now_s


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError | RedisTimeout):
        return f"no answer within {TIMEOUT_S:g} s"
    return str(error).rstrip(".") or type(error).__name__
