"""The JSON object in a request's body, read with limits on its size, time and depth."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from daq_core.errors import InvalidRequest

MAX_BODY_BYTES = 1_000_000  # a 9-megapixel detector's config has 20 kB
MAX_DEPTH = 20  # a detector config needs 3
BODY_TIMEOUT_S = 10.0


async def json_object(request: Request) -> Mapping[str, object]:
    """Return the request's body as a JSON object; InvalidRequest says why it is none."""
    text = await _read(request)
    request.state.body = text
    return parse_object(text)


JsonObject = Annotated[Mapping[str, object], Depends(json_object)]


def parse_object(text: bytes) -> Mapping[str, object]:
    """Make a JSON object from bytes.

    Raises
    ------
    InvalidRequest
        Not UTF-8, not JSON (NaN and numbers beyond a float's range are not JSON),
        a key given twice, nested too deeply, or not an object.
    """
    try:
        value = json.loads(
            text.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            object_pairs_hook=_without_duplicates,
        )
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The request body is not valid JSON: byte {error.start} is not UTF-8."
        ) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    except ValueError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest('The request body must be a JSON object, like {} or {"n_images": 10}.')
    if _deeper_than(MAX_DEPTH, value):
        raise InvalidRequest(_TOO_DEEP)
    return value


_TOO_DEEP = f"The request body is nested too deeply; {MAX_DEPTH} levels are allowed."


async def _read(request: Request) -> bytes:
    text = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                text += part
                if len(text) > MAX_BODY_BYTES:
                    raise InvalidRequest(f"The request body is larger than {MAX_BODY_BYTES} bytes.")
    except TimeoutError:
        raise InvalidRequest(f"The request body did not arrive within {BODY_TIMEOUT_S:g} s.") from None
    except ClientDisconnect:
        raise InvalidRequest("The client went away before the request body had arrived.") from None
    return bytes(text)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} is given twice")
        found[key] = value
    return found


def _deeper_than(levels: int, value: object) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(levels - 1, each) for each in inner)
