"""HTTP to a controller: one request at a time, off the event loop, each with a deadline."""

from __future__ import annotations

import asyncio
import json
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from vmnet.errors import ConfigError, RefusedError, UnavailableError, WaitTimeoutError

ANSWER_S: Final = 5.0
_MOST_BYTES: Final = 64 << 20
_open = build_opener(ProxyHandler({})).open
"""Without the proxies of the environment: a controller is near, and nobody else's business."""


def base_url(text: str) -> str:
    """Without a slash at its end. ConfigError if it is none of HTTP."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{text!r} is no address of an HTTP service", 'give e.g. "http://127.0.0.1:9302"')
    return text.rstrip("/")


async def fetch(url: str, body: Any = None, limit_s: float = ANSWER_S) -> str:
    """GET, or POST of ``body`` as JSON. UnavailableError, WaitTimeoutError; RefusedError for any status but 2xx."""
    return await asyncio.to_thread(_fetch, url, body, limit_s)


def _fetch(url: str, body: Any, limit_s: float) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json"} if data else {})
    try:
        with _open(request, timeout=limit_s) as answer:
            return str(answer.read(_MOST_BYTES).decode())
    except HTTPError as error:
        raise RefusedError(f"{url} answers {error.code} {error.reason}") from None
    except TimeoutError:
        raise WaitTimeoutError(f"no answer from {url} within {limit_s:g} s") from None
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise WaitTimeoutError(f"no answer from {url} within {limit_s:g} s") from None
        raise UnavailableError(
            f"cannot reach {url}: {getattr(error.reason, 'strerror', None) or error.reason}"
        ) from None
    except (OSError, HTTPException, UnicodeDecodeError) as error:
        raise UnavailableError(f"no answer from {url}: {error or type(error).__name__}") from None
