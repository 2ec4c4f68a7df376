"""A config on disk as the service keeps it: which file it was derived from, and a checksum.

The checksum is there because a digit that a disk has flipped makes another legal config. Files
that were kept before there was one are read, too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from daq_core.config import DaqConfig
from daq_core.errors import InvalidConfig

KNOWN = ({"config_file", "config", "checksum"}, {"config_file", "config"})


class Damaged(ValueError):
    """What was kept is not what was written; the text says how that shows."""


def written(config: DaqConfig, config_file: Path) -> str:
    """Return the text to keep."""
    kept = {"config_file": str(config_file), "config": config.as_dict()}
    return json.dumps(kept | {"checksum": _checksum(kept)}, indent=1)


def read(text: str) -> tuple[DaqConfig, str]:
    """Return a config that was kept, and the file that it belongs to; Damaged when it is not whole."""
    try:
        kept = json.loads(text)
        if not isinstance(kept, dict) or set(kept) not in KNOWN or not isinstance(kept["config_file"], str):
            raise Damaged("it has another form")
        checksum = kept.pop("checksum", None)
        if checksum is not None and checksum != _checksum(kept):
            raise Damaged("its checksum is another one: the disk has changed it")
        return DaqConfig.parse(kept["config"]), kept["config_file"]
    except Damaged:
        raise
    except (ValueError, TypeError, RecursionError, InvalidConfig) as error:
        raise Damaged(str(error)) from None


def _checksum(kept: dict[str, Any]) -> str:
    exact = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(exact.encode("utf-8", "surrogatepass")).hexdigest()
