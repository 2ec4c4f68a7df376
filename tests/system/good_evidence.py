"""What a good outcome leaves behind: a run with one lost packet, and the perfect run after it.

Two Jungfrau modules of eight rows; everything that is sent, written and shown is made up here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tests.oracle.packets import datagram, packet_numbers, place_packet
from tests.system.evidence import Counters, End, Evidence, Images, Look, Owned, RunEvidence, Sent

POSITIONS = {"0": [0, 0, 1023, 7], "1": [0, 10, 1023, 17]}  # two rows of gap between them
CONFIG = {
    "detector_type": "jungfrau",
    "bit_depth": 16,
    "module_positions": POSITIONS,
    "module_sync_queue_size": 8,
    "image_timeout_s": 0.5,
}
N_IMAGES = 5
LOST = (3, 1, 1)  # of image 3, from module 1, its second packet
OWNER = 1000
PATH, NEXT = "/data/run.h5", "/data/next.h5"


def packets(lost: tuple[int, int, int] = LOST) -> list[Sent]:
    """Five images of two modules with two packets each; one packet is lost."""
    random, sent = np.random.default_rng(1), []
    for image in range(1, N_IMAGES + 1):
        for module, corners in enumerate(POSITIONS.values()):
            for i, number in enumerate(packet_numbers("jungfrau", 16, corners)):
                payload = random.integers(1, 2**16, 4096, np.uint16).tobytes()
                if (image, module, i) != lost:
                    sent.append(
                        Sent(
                            10 + 0.01 * image,
                            10.01 + 0.01 * image,
                            image,
                            module,
                            False,
                            datagram(image, number, payload),
                        )
                    )
    return sent


def images_of(sent: list[Sent]) -> Images:
    """Return what a perfect DAQ writes of these packets."""
    pixels, n_received = np.zeros((N_IMAGES, 18, 1024), np.uint16), np.zeros(N_IMAGES, int)
    for packet in sent:
        corners = list(POSITIONS.values())[packet.port]
        place_packet(
            pixels[packet.image - 1], packet.data, detector="jungfrau", bit_depth=16, corners=corners
        )
        n_received[packet.image - 1] += 1
    return Images(
        pixels=pixels,
        columns={
            "image_id": np.arange(1, N_IMAGES + 1, dtype=np.uint64),
            "status": (n_received < 4).astype(np.uint64),
            "missing_packets": (4 - n_received).astype(np.uint32),
            "timestamp": np.full(N_IMAGES, 1e9),
        },
        state="FINISHED",
        message="Completed.",
        counters={"missing_packets": 1, "incomplete_images": 1, "dropped_images": 0},
    )


def record(path: str, run_id: int) -> dict[str, Any]:
    return {
        "state": "FINISHED",
        "message": "Completed.",
        "request": {"output_file": path, "n_images": N_IMAGES, "run_id": run_id},
        "n_write_completed": N_IMAGES,
    }


def good() -> Evidence:
    sent = packets()
    end = End("READY", "FINISHED", "Completed.", PATH, N_IMAGES, N_IMAGES)
    file = images_of(sent)
    tortured = RunEvidence(
        name="tortured",
        output_file=PATH,
        n_images=N_IMAGES,
        run_id=1,
        ends={"REST": end, "CA": end, "Redis": end},
        file=file,
        sent=sent,
        armed_s=10.0,
        looks=[Look(0, 0), Look(2, 3)],
        before=Counters(received=7, placed=7),
        after=Counters(received=7 + len(sent), placed=7 + len(sent)),
        losses=file.counters,
        stop_took_s=0.1,
    )
    whole = [replace_packet(packet, image=packet.image + 100) for packet in sent if packet.image != LOST[0]]
    keep = [i for i in range(N_IMAGES) if i != LOST[0] - 1]
    columns = {name: column[keep] for name, column in file.columns.items()}
    columns["image_id"] = columns["image_id"] + np.uint64(100)
    no_losses = dict.fromkeys(file.counters, 0)
    perfect = replace(
        tortured,
        name="after it",
        output_file=NEXT,
        n_images=4,
        run_id=2,
        ends={face: replace(end, output_file=NEXT, n_images=4, n_completed=4) for face in tortured.ends},
        file=Images(file.pixels[keep], columns, "FINISHED", "Completed.", no_losses),
        sent=whole,
        after=Counters(received=7 + len(whole), placed=7 + len(whole)),
        losses=no_losses,
        looks=[],
        is_perfect=True,
    )
    following = record(NEXT, 2) | {"n_write_completed": 4}
    following["request"] = following["request"] | {"n_images": 4}
    journal = [record(PATH, 1), following]
    logs = [{"info": {"run_id": 2}}, {"info": {"run_id": 1}}]
    files = [Owned(PATH, OWNER, "aa"), Owned(NEXT, OWNER, "bb")]
    outside = [Owned("/elsewhere/precious", 0, "cc")]
    return Evidence(
        config=CONFIG,
        runs=[tortured, perfect],
        accepted=[(PATH, 1), (NEXT, 2)],
        refused=["/data/refused.h5"],
        journal=journal,
        logs=logs,
        redis_log=logs[::-1],
        owner=OWNER,
        files=files,
        outside_before=outside,
        outside_after=list(outside),
        finished=list(files),
    )


def replace_packet(packet: Sent, *, image: int) -> Sent:
    """Return the same packet as one of another image."""
    return packet._replace(image=image, data=image.to_bytes(8, "little") + packet.data[8:])
