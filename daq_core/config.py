"""The std_daq detector JSON as one frozen, validated model.

A config is legal or it does not exist: types, ranges and the whole geometry are
checked when it is made, and the message names the key, the module and the
numbers. ``merge`` gives the config after a partial change, as std_daq's
``set_config`` does: every key given replaces the old one whole,
``module_positions`` included.

Source of the keys: the README of ``std_daq_client`` 1.3.5 and std_daq's own
config files; keys that only this project knows are marked "ours".
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from daq_core.detectors import MAX_CHUNK_BYTES, Layout, layout_of
from daq_core.detectors.keys import DetectorKeys, Integer
from daq_core.errors import InvalidConfig

log = logging.getLogger(__name__)

MOST_NAMED = 8
MAX_FILE_BYTES = 4 * 2**20  # a 9-megapixel detector's config has 20 kB
MOST_GROWTH = 0.02
"""Of noise that is compressed: LZ4 adds 1/255 and 16 bytes to a block of 8 KiB at most, zstd twice that."""


def _not_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


Number = Annotated[float, BeforeValidator(_not_boolean)]


class DaqConfig(DetectorKeys):
    """One detector and how its images are assembled and written."""

    writer_user_id: Annotated[Integer, Field(ge=-1, le=2**32 - 2)]
    """Unix user id that creates and owns the files; below 1: the user of the service."""

    submodule_info: dict[str, Any] | list[Any] | None = None
    """Passed through untouched, for the original's web page."""
    log_level: Literal["debug", "info", "warning", "error", "off"] = "info"
    stats_collection_period: Annotated[Integer, Field(ge=0)] = 10
    """Seconds; kept for the original, our rates are at 1 Hz."""
    module_sync_queue_size: Annotated[Integer, Field(ge=1, le=100_000)] = 50
    """Images that may be open (incomplete) at once; never more than half the ring."""
    ram_buffer_gb: Annotated[Number, Field(ge=0, le=4096)] = 0
    """Size of the image ring in GiB; 0: 1 GiB or a quarter of the free memory, whichever is less."""
    number_of_writers: Annotated[Integer, Field(ge=0, le=64)] = 0
    """Processes that write a run, each its own file, image by image in turn; 0 and 1: one. The file asked for
    is then a virtual one over run_0.h5, run_1.h5 and so on, made when they are closed."""
    max_number_of_forwarders_spawned: Annotated[Integer, Field(ge=0)] = 8
    use_all_forwarders: bool = False
    sender_sends_full_images: bool = False
    gpfs_block_size: Annotated[Integer, Field(ge=0)] = 16777216
    delay_filter_timeout: Annotated[Integer, Field(ge=0)] = 10
    switch_user_active: bool = False
    live_stream_configs: dict[str, Any] = {}  # noqa: RUF012 - pydantic gives each config its own
    deactivate: Any = None

    stream_socket: Literal["pull", "sub"] = "pull"
    """Ours. bsread: pull from PUSH senders, which share the images out, or sub to PUB senders."""
    image_timeout_s: Annotated[Number, Field(gt=0, le=3600, allow_inf_nan=False)] = 0.5
    """Ours. An image is given up this long after its newest packet."""
    incomplete_images: Literal["write", "drop"] = "write"
    """Ours. What happens with an image that lacks packets: written with zeros and its status, or left out."""
    compression: Literal["none", "bitshuffle-lz4", "bitshuffle-zstd"] = "none"
    """Ours. How images are stored. Compressed files need hdf5plugin to be read; LZ4 takes about 0.2 ms of
    a core for a MiB of photons, zstd 1.3 ms for files that are up to a third smaller."""
    compression_threads: Annotated[Integer, Field(ge=0, le=64)] = 0
    """Ours. Cores that compress; 0: all that the service may use, 16 at most."""

    @model_validator(mode="after")
    def _consistent(self) -> DaqConfig:
        if self.detector_name == "entry" or not self.detector_name.isprintable() or "/" in self.detector_name:
            raise ValueError(
                f"detector_name {self.detector_name!r} cannot be used: it names a group in the file, "
                "which must not be 'entry' nor contain '/' or control characters"
            )
        if self.detector_name in (".", ".."):
            raise ValueError(f"detector_name {self.detector_name!r} cannot name a group in the file")
        if len(set(self.stream_addresses)) < len(self.stream_addresses):
            raise ValueError(f"stream_addresses names an address twice: {', '.join(self.stream_addresses)}")
        image_bytes = self.layout.image_bytes  # with all its checks
        if self.compression != "none" and image_bytes * (1 + MOST_GROWTH) > MAX_CHUNK_BYTES:
            raise ValueError(
                f"an image of {image_bytes} bytes can become larger than HDF5 allows for one chunk when "
                "it is noise: set compression to none"
            )
        return self

    @cached_property
    def layout(self) -> Layout:
        """What comes of the detector's keys; worked out when the config is checked, and never again."""
        return layout_of(self)

    @classmethod
    def parse(cls, values: object) -> DaqConfig:
        """Make a config from a JSON object; InvalidConfig lists everything that is wrong."""
        if not isinstance(values, Mapping):
            raise InvalidConfig("Config errors: the config must be a JSON object.")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InvalidConfig(_explain(error)) from None

    @classmethod
    def load(cls, path: str | Path) -> DaqConfig:
        """Read a config file; InvalidConfig names the file and what is wrong in it."""
        path = Path(path)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise InvalidConfig(f"{path}: larger than {MAX_FILE_BYTES} bytes, not a detector config.")
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InvalidConfig(f"{path}: cannot be read: {error.strerror}.") from None
        except ValueError as error:
            raise InvalidConfig(f"{path}: not JSON: {error}.") from None
        try:
            config = cls.parse(values := read_json(text))
        except InvalidConfig as error:
            raise InvalidConfig(f"{path}: {error}") from None
        if unknown := unknown_keys(values):
            log.warning("%s: keys that no config has are ignored: %s", path, named(unknown))
        return config

    def merge(self, changes: object) -> DaqConfig:
        """Return the config after a partial change; this one stays as it is."""
        if not isinstance(changes, Mapping):
            raise InvalidConfig("Config errors: the config must be a JSON object.")
        known = {key: value for key, value in changes.items() if key in type(self).model_fields}
        return self.parse(self.as_dict() | known)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object: the nine std_daq keys, then those that were given."""
        required = {name: getattr(self, name) for name in REQUIRED}
        optional = {
            name: getattr(self, name)
            for name in type(self).model_fields
            if name not in required and name in self.model_fields_set
        }
        positions = {str(module): list(corners) for module, corners in self.module_positions.items()}
        return required | {"module_positions": positions} | optional

    def window(self, n_slots: int) -> int:
        """Return how many images may be open at once in a ring of so many slots."""
        return max(1, min(self.module_sync_queue_size, n_slots // 2))

    def as_json(self) -> str:
        return json.dumps(self.as_dict())


REQUIRED = (
    "detector_name",
    "detector_type",
    "bit_depth",
    "image_pixel_height",
    "image_pixel_width",
    "n_modules",
    "start_udp_port",
    "writer_user_id",
    "module_positions",
)
"""In the order of the original, in which they are also shown."""


def unknown_keys(values: Iterable[str]) -> list[str]:
    """Name the keys that no config has; they are ignored, and worth a warning."""
    return sorted(str(key) for key in values if key not in DaqConfig.model_fields)


def nearest_key(key: str) -> str:
    """Return the key that was meant by one that no config has; "" when it resembles none."""
    return next(iter(get_close_matches(key.lower(), DaqConfig.model_fields, n=1, cutoff=0.7)), "")


def named(unknown: Iterable[str]) -> str:
    """Return keys that no config has for people, each with the one that may have been meant."""
    keys = list(unknown)
    likely = ((key, nearest_key(key)) for key in keys[:MOST_NAMED])
    shown = [f"{shorten(key)} (is {near} meant?)" if near else shorten(key) for key, near in likely]
    return ", ".join([*shown, f"and {len(keys) - MOST_NAMED} more"] if len(keys) > MOST_NAMED else shown)


def read_json(text: str) -> Any:
    """Return what a JSON text says; InvalidConfig where it is none, or names a key twice in one object."""
    try:
        return json.loads(text, object_pairs_hook=_once_each)
    except InvalidConfig:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"not JSON: {error}.") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidConfig(f"the key {shorten(key)} is given twice: with which value?")
        found[key] = value
    return found


def shorten(key: str) -> str:
    """Return a key as it may be shown, whoever made it up."""
    return key[:40] + "…" if len(key) > 40 else key if key.isprintable() else repr(key)


def _explain(error: ValidationError) -> str:
    """One sentence for all that is wrong, in std_daq's words where it has them."""
    missing, other = [], []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing":
            missing.append(where)
        elif message == "non-int value":
            other.append(f"non-int value {where} ({_shown(problem['input'])})")
        elif where:
            other.append(f"{where}: {message[0].lower()}{message[1:]}, got {_shown(problem['input'])}")
        else:
            other.append(message)
    if missing:
        other.insert(0, "missing " + ", ".join(missing))
    return "Config errors: " + "; ".join(other) + "."


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "…"
