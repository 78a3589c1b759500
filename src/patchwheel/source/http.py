"""HTTP for indexes and downloads: certificates, retries, and messages without secrets."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, TypeVar

from patchwheel.kit import InputError, redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    import requests

T = TypeVar("T")

TIMEOUT = (10, 30)
RETRIES = 4
# urllib3 doubles the pause with each retry, this many seconds to begin with.
BACKOFF = 0.5
BUSY = (408, 425, 429, 500, 502, 503, 504)
REACH = "check the network, the proxy and the index settings of uv or pip"


class TransientError(Exception):
    """A transfer failed in a way that may not repeat."""


def _session() -> requests.Session:
    """Return a session that retries, and trusts the certificates that uv and pip trust."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    made = requests.Session()
    # A file is written as it comes: wheels are too large for memory.
    made.stream = True
    # requests itself reads these two.
    if not (os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")):
        made.verify = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT") or True
    # `other` counts certificates that are not trusted: they will not be the next time either.
    retry = Retry(
        RETRIES, other=0, backoff_factor=BACKOFF, status_forcelist=BUSY, raise_on_status=False
    )
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=retry))
    return made


def retried(task: str, attempt: Callable[[], T]) -> T:
    """Call `attempt` again while it raises TransientError, a few times; then raise InputError.

    urllib3 retries until an answer begins; this is for a body that was cut off or damaged.
    """
    for _ in range(RETRIES):
        with contextlib.suppress(TransientError):
            return attempt()
    try:
        return attempt()
    except TransientError as err:
        raise InputError(f"{task}: {err} (tried {RETRIES + 1} times)", hint=REACH) from err


@contextlib.contextmanager
def requested(
    task: str, url: str, headers: Mapping[str, str], *, ok: Collection[int]
) -> Iterator[requests.Response]:
    """Give the answer to a request; the status is below 400 or in `ok`.

    Raises TransientError for a body that was cut off, InputError for all else that fails.
    """
    import requests
    from urllib3.exceptions import MaxRetryError

    try:
        with _session() as http, http.get(url, headers=headers, timeout=TIMEOUT) as response:
            if not (response.ok or response.status_code in ok):
                status = f"the server answered {response.status_code} {response.reason}"
                raise InputError(f"{task}: {status}", hint=REACH)
            yield response
    except requests.exceptions.SSLError as err:
        problem = f"{task}: the server's certificate is not trusted: {_cause(err)}"
        hint = "name the file of your certificate authority in SSL_CERT_FILE"
        raise InputError(problem, hint=hint) from err
    except requests.exceptions.RequestException as err:
        lost = (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError)
        if isinstance(err, lost) and not isinstance(err.args[0], MaxRetryError):
            raise TransientError(_cause(err)) from err
        raise InputError(f"{task}: {_cause(err)}", hint=REACH) from err


def _cause(err: Exception) -> str:
    """Return the innermost reason that requests and urllib3 wrap in each other."""
    # The text is that of the outermost error; it ends with the cause in parentheses.
    text = str(err).rpartition("Caused by ")[2].strip("() ")
    reason = re.sub(r"<[^>]*>:? ?|^\w+\(['\"]?|['\"]\)?$", "", text)
    return redacted(reason) or type(err).__name__
