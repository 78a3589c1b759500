"""HTTP for indexes and downloads: certificates, what may be tried again, and messages without secrets."""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING, TypeVar

from patchwheel.kit.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests

T = TypeVar("T")

TIMEOUT = (10, 30)
# Seconds between attempts at a server that answers badly or not at all.
PAUSES = (0.5, 1.0, 2.0, 4.0)
BUSY = frozenset({408, 425, 429})
REACH = "check the network, the proxy and the index settings of uv or pip"


class Flaky(Exception):  # noqa: N818  (no error yet: it is what makes `retried` try again)
    """The network or a server failed in a way that may pass."""


def redacted(text: str) -> str:
    """Return text in which no URL has credentials or a query, which may hold a token."""
    text = re.sub(r"(?<=://)[^/@\s]+@", "", text)
    return re.sub(r"(://[^\s?#]+)[?#][^\s'\")]*", r"\1", text)


def session() -> requests.Session:
    """Return a session that trusts the certificates that uv and pip are told to trust."""
    import requests

    made = requests.Session()
    if not (os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")):
        bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
        made.verify = bundle or True
    return made


def retried(what: str, attempt: Callable[[], T]) -> T:
    """Call `attempt` until it raises no Flaky, a few times; then InputError says what it raised last."""
    for pause in (*PAUSES, None):
        try:
            return attempt()
        except Flaky as err:
            if pause is None:
                raise InputError(
                    f"{what}: {err} (tried {len(PAUSES) + 1} times)", hint=REACH
                ) from err
            time.sleep(pause)
    raise AssertionError  # pragma: no cover  (the last attempt returns or raises)


@contextlib.contextmanager
def http_errors(what: str) -> Iterator[None]:
    """Turn what requests raises into Flaky where another attempt may help, else into InputError."""
    import requests

    try:
        yield
    except requests.exceptions.SSLError as err:
        raise InputError(
            f"{what}: the server's certificate is not trusted: {_cause(err)}",
            hint="name the file of your certificate authority in SSL_CERT_FILE",
        ) from err
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as err:
        raise Flaky(_cause(err)) from err
    except requests.exceptions.RequestException as err:
        raise InputError(f"{what}: {_cause(err)}", hint=REACH) from err


def check_status(what: str, response: requests.Response) -> None:
    """Raise Flaky for a status that may pass, InputError for another that is no success."""
    status = f"the server answered {response.status_code} {response.reason}"
    if response.status_code in BUSY or response.status_code >= 500:  # noqa: PLR2004
        raise Flaky(status)
    if not response.ok:
        raise InputError(f"{what}: {status}", hint=REACH)


def _cause(err: Exception) -> str:
    """Return the innermost reason that requests and urllib3 wrap in each other."""
    text = str(err).rpartition("Caused by ")[2].strip("() ")
    reason = re.sub(r"<[^>]*>:? ?|^\w+\(['\"]?|['\"]\)?$", "", text)
    return redacted(reason) or type(err).__name__
