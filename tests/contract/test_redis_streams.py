"""What readers of std_daq's Redis streams see, over a real server that dies, hangs and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeout

from daq_core.config import DaqConfig
from daq_core.errors import Unavailable
from daq_core.state.events import WriterLost
from daq_core.state.status import WriteRequest
from ioc.program.ports import LOOPBACK, free_ports
from rest_bridge import models, redis_streams
from rest_bridge.redis_server import EmbeddedRedis
from rest_bridge.redis_streams import CONFIG, LOG, STAT, STATUS, WRITER_STATUS, RedisPublisher
from tests.daq.simulated_daq import OnlyDoor, SimulatedDaq
from tests.processes.service import JUNGFRAU_2

RUN_OF_TWO = [
    ("WRITING", "FINISHED", 0),  # accepted; the acquisition before is shown until the file is open
    ("WRITING", "WAITING_IMAGES", 0),
    ("WRITING", "ACQUIRING_IMAGES", 0),
    ("WRITING", "WRITING", 1),
    ("WRITING", "WRITING", 2),
    ("WRITING", "FLUSHING_IMAGES", 2),
    ("READY", "FINISHED", 2),
]


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedRedis]:
    async with EmbeddedRedis(LOOPBACK, free_ports()) as server:
        yield server


@pytest.fixture
async def redis(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """A reader of the server; it connects anew when the server was started again."""
    async with Redis(host=LOOPBACK, port=server.port) as redis:
        yield redis


@pytest.fixture
async def admin(server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """The server's own user, who may do with it what no reader may."""
    async with Redis.from_url(server.url) as admin:
        yield admin


@pytest.fixture
async def daq() -> AsyncIterator[SimulatedDaq]:
    async with SimulatedDaq(DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})) as daq:
        yield daq


@contextlib.asynccontextmanager
async def publishing(
    daq: SimulatedDaq, url: str, renew: Callable[[], None] | None = None
) -> AsyncIterator[RedisPublisher]:
    publisher = RedisPublisher(OnlyDoor(daq), url, renew)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def publisher(daq: SimulatedDaq, server: EmbeddedRedis) -> AsyncIterator[RedisPublisher]:
    """A publisher that is connected."""
    async with publishing(daq, server.url) as publisher:
        await until(lambda: publisher.connected)
        yield publisher


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_streams, "TIMEOUT_S", 0.5)


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the publisher tells PVs, which poll too; it has no event
            await asyncio.sleep(0.01)


async def until_sent(publisher: RedisPublisher) -> None:
    await until(lambda: publisher.connected and publisher.n_queued == 0)


async def take_run(daq: SimulatedDaq, path: Path, n_images: int = 2) -> dict[str, Any]:
    """Take a run; return it as the wire shows it."""
    await daq.start(WriteRequest.checked(str(path), n_images))
    await daq.receive(n_images)
    return models.Acquisition.of(daq.snapshot.status.acquisition).model_dump()


async def entries(redis: Redis, stream: str) -> list[Any]:
    return [json.loads(fields[b"json"]) for _, fields in await redis.xrange(stream)]


def states(statuses: list[Any]) -> list[tuple[str, str, int]]:
    """Return what changed from status to status."""
    seen = [
        (s["state"], s["acquisition"]["state"], s["acquisition"]["stats"]["n_write_completed"])
        for s in statuses
    ]
    return [state for state, _ in itertools.groupby(seen)]


# ------------------------------------------------------------------ what is published


async def test_every_state_of_a_run_is_in_both_status_streams_in_order(
    daq: SimulatedDaq, redis: Redis, publisher: RedisPublisher, tmp_path: Path
) -> None:
    await take_run(daq, tmp_path / "a.h5")
    await until_sent(publisher)
    statuses = await entries(redis, STATUS)
    assert states(statuses)[1:] == RUN_OF_TWO
    assert await entries(redis, WRITER_STATUS) == statuses


async def test_status_and_statistics_come_every_second_when_nothing_happens(
    redis: Redis, publisher: RedisPublisher
) -> None:
    await asyncio.sleep(3.5)
    assert 3 <= len(await entries(redis, STATUS)) <= 5
    assert 3 <= len(stats := await entries(redis, STAT)) <= 4
    assert stats[-1] == {
        "detector": {"bytes_per_second": 0.0, "images_per_second": 0.0},
        "writer": {"bytes_per_second": 0.0, "images_per_second": 0.0},
    }


async def test_the_config_is_there_at_start_and_after_a_change_under_its_id(
    daq: SimulatedDaq, redis: Redis, publisher: RedisPublisher
) -> None:
    first = daq.snapshot
    await daq.configure({"detector_name": "other"})
    second = daq.snapshot
    await daq.reconfigured()
    await until_sent(publisher)
    assert await redis.xrange(CONFIG) == [
        (snapshot.config_id.encode(), {b"json": models.to_json(snapshot.config.as_dict())})
        for snapshot in (first, second)
    ]


async def test_a_config_older_than_what_the_stream_holds_gets_an_id_from_redis(
    daq: SimulatedDaq, redis: Redis, server: EmbeddedRedis
) -> None:
    await redis.xadd(CONFIG, {"json": "{}"}, id="9999999999999-0")
    async with publishing(daq, server.url) as publisher:
        await until_sent(publisher)
    assert (await entries(redis, CONFIG))[1:] == [daq.snapshot.config.as_dict()]


async def test_the_log_has_each_run_that_ended_with_a_file(
    daq: SimulatedDaq, redis: Redis, publisher: RedisPublisher, tmp_path: Path
) -> None:
    finished = await take_run(daq, tmp_path / "a.h5")
    await daq.start(WriteRequest.checked(str(tmp_path / "b.h5"), 5))
    await daq.stop()
    interrupted = models.Acquisition.of(daq.snapshot.status.acquisition).model_dump()
    await daq.start(WriteRequest.checked(str(tmp_path / "c.h5"), 5))
    daq.apply(WriterLost("killed"))
    await until_sent(publisher)
    assert interrupted["message"] == "Interrupted."
    assert await entries(redis, LOG) == [
        {**finished, "reports": []},
        {**interrupted, "reports": []},
    ]


async def test_streams_do_not_grow_for_ever(
    daq: SimulatedDaq,
    redis: Redis,
    publisher: RedisPublisher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(redis_streams.MAX_LENGTH, STATUS, 100)
    await take_run(daq, tmp_path / "a.h5", n_images=500)
    await until_sent(publisher)
    assert 100 <= len(await entries(redis, STATUS)) < 300
    assert len(await entries(redis, WRITER_STATUS)) > 500


# ---------------------------------------------------------------- when Redis is not well


async def test_without_redis_the_publisher_says_so_and_connects_when_it_comes(
    daq: SimulatedDaq, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_ports()
    caplog.set_level(logging.INFO, "rest_bridge.redis_streams")
    async with publishing(daq, f"{LOOPBACK}:{port}") as publisher:
        await until(lambda: "refused" in publisher.trouble or "Connect" in publisher.trouble)
        assert (publisher.connected, publisher.latency_s) == (False, None)
        finished = await take_run(daq, tmp_path / "a.h5")
        await asyncio.sleep(1)  # several attempts, one line in the log
        async with EmbeddedRedis(LOOPBACK, port) as server, Redis(host=LOOPBACK, port=server.port) as redis:
            await until_sent(publisher)
            assert publisher.latency_s is not None
            assert publisher.trouble == ""
            assert states(await entries(redis, STATUS)) == RUN_OF_TWO
            assert await entries(redis, LOG) == [{**finished, "reports": []}]
    lines = [record.getMessage() for record in caplog.records if record.name == redis_streams.log.name]
    assert len(lines) == 2
    assert str(port) in lines[0]
    assert lines[1] == f"publishing to Redis at {LOOPBACK}:{port}"


async def test_a_killed_server_is_started_again_and_nothing_of_a_run_is_lost(
    daq: SimulatedDaq, server: EmbeddedRedis, publisher: RedisPublisher, tmp_path: Path
) -> None:
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    finished = await take_run(daq, tmp_path / "a.h5")
    await until(lambda: server.pid != killed)
    await until_sent(publisher)
    async with Redis(host=LOOPBACK, port=server.port) as redis:  # empty: it keeps nothing
        assert await entries(redis, LOG) == [{**finished, "reports": []}]
        assert states(await entries(redis, STATUS))[-1] == ("READY", "FINISHED", 2)
        assert (await entries(redis, CONFIG))[-1] == daq.snapshot.config.as_dict()


async def test_a_server_that_came_back_empty_has_the_whole_log_again_and_nothing_twice(
    daq: SimulatedDaq, server: EmbeddedRedis, publisher: RedisPublisher, tmp_path: Path
) -> None:
    before = [await take_run(daq, tmp_path / f"{n}.h5") for n in range(3)]
    await until_sent(publisher)
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    meanwhile = await take_run(daq, tmp_path / "meanwhile.h5")
    await until(lambda: server.pid != killed)
    await until_sent(publisher)
    after = await take_run(daq, tmp_path / "after.h5")
    await until_sent(publisher)
    async with Redis(host=LOOPBACK, port=server.port) as redis:
        assert await entries(redis, LOG) == [{**run, "reports": []} for run in (*before, meanwhile, after)]


async def test_a_new_server_gets_the_log_of_the_journal_and_one_that_has_a_log_keeps_its_own(
    daq: SimulatedDaq, server: EmbeddedRedis, redis: Redis, tmp_path: Path
) -> None:
    runs = [await take_run(daq, tmp_path / f"{n}.h5") for n in range(2)]
    async with publishing(daq, server.url) as publisher:
        await until_sent(publisher)
        assert await entries(redis, LOG) == [{**run, "reports": []} for run in runs]
    async with publishing(daq, server.url) as publisher:
        await until_sent(publisher)
        assert len(await entries(redis, LOG)) == len(runs)


@pytest.mark.usefixtures("short_timeout")
async def test_a_server_that_hangs_delays_neither_a_run_nor_its_entries_for_ever(
    daq: SimulatedDaq, redis: Redis, server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with publishing(daq, server.url) as publisher:
        await until_sent(publisher)
        os.kill(server.pid, signal.SIGSTOP)
        began = time.monotonic()
        await take_run(daq, tmp_path / "a.h5")
        assert time.monotonic() - began < 0.5
        await until(lambda: not publisher.connected)
        assert publisher.trouble == "no answer within 0.5 s"
        os.kill(server.pid, signal.SIGCONT)
        await until_sent(publisher)
        assert states(await entries(redis, STATUS))[-1] == ("READY", "FINISHED", 2)


async def test_a_pause_of_the_server_loses_no_state(
    daq: SimulatedDaq, admin: Redis, redis: Redis, publisher: RedisPublisher, tmp_path: Path
) -> None:
    await admin.execute_command("CLIENT", "PAUSE", "1500", "ALL")
    await take_run(daq, tmp_path / "a.h5")
    await asyncio.sleep(1)
    await until_sent(publisher)
    assert states(await entries(redis, STATUS))[1:] == RUN_OF_TWO


async def test_a_key_that_is_no_stream_is_named_and_does_not_keep_the_others_back(
    daq: SimulatedDaq, redis: Redis, publisher: RedisPublisher, tmp_path: Path
) -> None:
    await until_sent(publisher)
    await redis.set(STATUS, "a string")
    await take_run(daq, tmp_path / "a.h5")
    await until_sent(publisher)
    assert publisher.trouble == "daq:status is no stream there: delete or rename that key"
    assert publisher.dropped >= len(RUN_OF_TWO)
    assert states(await entries(redis, WRITER_STATUS))[1:] == RUN_OF_TWO
    await redis.delete(STATUS)
    await until(lambda: publisher.trouble == "")
    assert states(await entries(redis, STATUS)) == RUN_OF_TWO[-1:]


async def test_a_server_out_of_memory_gets_everything_when_it_has_some_again(
    daq: SimulatedDaq, admin: Redis, redis: Redis, publisher: RedisPublisher, tmp_path: Path
) -> None:
    await until_sent(publisher)
    await admin.config_set("maxmemory", "1")
    await take_run(daq, tmp_path / "a.h5")
    await until(lambda: "maxmemory" in publisher.trouble)
    await admin.config_set("maxmemory", "0")
    await until_sent(publisher)
    assert states(await entries(redis, STATUS))[1:] == RUN_OF_TWO
    assert publisher.dropped == 0


LAST_ID = f"{2**64 - 1}-{2**64 - 1}"


@pytest.mark.parametrize(
    "spoil",
    [
        ("SET", LOG, "a string"),
        ("XADD", STATUS, LAST_ID, "json", "{}"),
        ("EVAL", "while true do end", "0"),
    ],
    ids=["wrong type", "no id left", "busy for ever"],
)
@pytest.mark.usefixtures("short_timeout")
async def test_what_somebody_makes_useless_is_started_again_and_has_the_journal_again(
    daq: SimulatedDaq,
    server: EmbeddedRedis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: tuple[str, ...],
) -> None:
    monkeypatch.setattr(redis_streams, "RENEW_AFTER_S", 1.0)
    async with publishing(daq, server.url, server.renew) as publisher:
        runs = [await take_run(daq, tmp_path / "a.h5")]
        await until_sent(publisher)
        former = server.pid
        once = Retry(NoBackoff(), 0)
        async with Redis(host=LOOPBACK, port=server.port, socket_timeout=1, retry=once) as somebody:
            await somebody.delete(spoil[1])
            with contextlib.suppress(RedisTimeout):
                await somebody.execute_command(*spoil)
        runs.append(await take_run(daq, tmp_path / "b.h5"))
        await until(lambda: server.pid != former, seconds=60)
        await until(lambda: publisher.connected and not publisher.trouble and not publisher.n_queued, 60)
        async with Redis(host=LOOPBACK, port=server.port) as reader:
            assert [run["info"]["output_file"] for run in await entries(reader, LOG)] == [
                run["info"]["output_file"] for run in runs
            ]
            assert states(await entries(reader, STATUS))[-1] == RUN_OF_TWO[-1]


async def test_a_server_of_somebody_else_is_not_started_again(
    daq: SimulatedDaq, server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch, redis: Redis
) -> None:
    monkeypatch.setattr(redis_streams, "RENEW_AFTER_S", 0.0)
    async with publishing(daq, server.url) as publisher:
        await until_sent(publisher)
        former = server.pid
        await redis.set(STAT, "a string")
        await until(lambda: STAT in publisher.trouble)
        dropped = publisher.dropped
        await until(lambda: publisher.dropped > dropped)
        assert server.pid == former


async def test_a_full_queue_drops_the_oldest_entries_and_counts_them_but_keeps_the_log(
    daq: SimulatedDaq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_streams, "MAX_QUEUED", 10)
    statuses = []
    daq.subscribe(lambda snapshot: statuses.append(snapshot.status))
    async with publishing(daq, f"{LOOPBACK}:{free_ports()}") as publisher:
        await until(lambda: "connecting" in publisher.trouble)
        await take_run(daq, tmp_path / "a.h5")
        n_changes = len(list(itertools.groupby(statuses)))
        assert publisher.n_queued == 10 + 1  # the log has a queue of its own
        assert publisher.dropped == 2 * n_changes - 10  # there are two streams of the status


async def test_what_is_queued_when_the_service_ends_is_still_sent(
    daq: SimulatedDaq, redis: Redis, server: EmbeddedRedis, tmp_path: Path
) -> None:
    async with publishing(daq, server.url) as publisher:
        await until_sent(publisher)
        finished = await take_run(daq, tmp_path / "a.h5")
    assert await entries(redis, LOG) == [{**finished, "reports": []}]


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(Unavailable, match="The Redis URL cannot be used"):
        RedisPublisher(SimulatedDaq(DaqConfig.parse({**JUNGFRAU_2, "start_udp_port": 2000})), "http://x:1")


ODD = "pa#s/s?w@r:d[%]"


@pytest.mark.parametrize("written", [ODD, quote(ODD, safe="")], ids=["as it is", "quoted"])
async def test_a_password_may_have_any_character_and_is_never_shown(
    daq: SimulatedDaq, admin: Redis, server: EmbeddedRedis, caplog: pytest.LogCaptureFixture, written: str
) -> None:
    await admin.acl_setuser("odd", enabled=True, passwords=[f"+{ODD}"], keys=["*"], categories=["+@all"])
    place = f"{LOOPBACK}:{server.port}"
    with caplog.at_level("INFO"):
        async with publishing(daq, f"redis://odd:{written}@{place}/0") as publisher:
            await until_sent(publisher)
            assert (publisher.place, publisher.trouble) == (place, "")
        async with publishing(daq, f"redis://odd:x{written}@{place}/0") as publisher:
            await until(lambda: "not connected yet" not in publisher.trouble)
            assert publisher.trouble
            assert "pa#s" not in publisher.trouble
    assert place in caplog.text
    assert "pa#s" not in caplog.text
    assert "pa%23s" not in caplog.text
