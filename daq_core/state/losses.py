"""What a run lost: its counts, and the words for them that every face uses."""

from __future__ import annotations

from dataclasses import dataclass

from daq_core.amounts import counted


@dataclass(frozen=True)
class Losses:
    """Images and packets of a run that did not arrive whole."""

    missing_packets: int = 0  # in images that were written
    incomplete_images: int = 0
    sparse_images: int = 0  # of these: written with less than half of their packets; perhaps no images at all
    dropped_images: int = 0  # ring full, incomplete with incomplete_images = "drop", or given up
    given_up_images: int = 0  # of these: in memory when a stop left no time to write them
    mismatched_images: int = 0  # the modules disagreed on the image id
    other_format_images: int = 0  # a packet showed that they have another format than the config's
    not_good_images: int = 0  # handed to the writer with a status that is not good, for whatever reason
    invalid_pixels: int = 0  # Jungfrau, converted: NaN, because their gain stage does not exist
    silent_modules: tuple[int, ...] = ()  # modules that sent nothing while others did

    @property
    def any(self) -> bool:
        """Whether anything was lost."""
        return self != NO_LOSSES


NO_LOSSES = Losses()


def in_words(losses: Losses) -> str:
    """Say what was lost, with all numbers, on one line; "" where nothing was."""
    said = [
        f"{counted(n, thing)} {what}"
        for n, thing, what in (
            (losses.incomplete_images, "image", "incomplete"),
            (losses.sparse_images, "image", "with less than half of the packets"),
            (losses.missing_packets, "packet", "missing"),
            (losses.dropped_images, "image", "dropped"),
            (losses.mismatched_images, "image", "whose modules disagree on the id"),
            (losses.other_format_images, "image", "in another format than the config's"),
            (losses.invalid_pixels, "pixel", "without a gain stage"),
        )
        if n
    ]
    if losses.silent_modules:
        plural = "s" if len(losses.silent_modules) > 1 else ""
        said.append(f"nothing from module{plural} {', '.join(map(str, losses.silent_modules))}")
    return ", ".join(said)


def in_short(losses: Losses) -> str:
    """Say it for a column of a list: "10 incomplete, module 3 silent"; "-" where nothing was lost."""
    counts = {
        "incomplete": losses.incomplete_images,
        "dropped": losses.dropped_images,
        "with ids that disagree": losses.mismatched_images,
        "in another format": losses.other_format_images,
        "pixels invalid": losses.invalid_pixels,
    }
    said = [f"{n} {what}" for what, n in counts.items() if n]
    if losses.silent_modules:
        said.append(f"module {','.join(map(str, losses.silent_modules))} silent")
    return ", ".join(said) or "-"
