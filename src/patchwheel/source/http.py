"""HTTP for indexes and downloads: certificates, retries, and messages without secrets."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, TypeVar

from patchwheel.kit import InputError, redacted

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

T = TypeVar("T")

TIMEOUT = (10, 30)
RETRIES = 4
# urllib3 doubles the pause with each retry, this many seconds to begin with.
BACKOFF = 0.5
BUSY = (408, 425, 429, 500, 502, 503, 504)


def retried(task: str, attempt: Callable[[requests.Session], T]) -> T:
    """Call `attempt`, again when its connection is cut off; InputError for all else that fails."""
    import requests
    from urllib3.exceptions import MaxRetryError

    lost = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
    left = RETRIES
    while True:
        try:
            with _session() as http:
                return attempt(http)
        except requests.RequestException as err:
            # urllib3 has retried until the answer began; this is for a body that was cut off.
            if not left or not isinstance(err, lost) or isinstance(err.args[0], MaxRetryError):
                raise _explained(task, err) from err
            left -= 1


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


def _explained(task: str, err: requests.RequestException) -> InputError:
    import requests

    # requests and urllib3 wrap errors in each other: the text ends with the cause in parentheses.
    text = str(err).rpartition("Caused by ")[2].strip("() ")
    why = redacted(re.sub(r"<[^>]*>:? ?|^\w+\(['\"]?|['\"]\)?$", "", text)) or type(err).__name__
    hint = "check the network, the proxy and the index settings of uv or pip"
    if isinstance(err, requests.exceptions.SSLError):
        why = f"the server's certificate is not trusted: {why}"
        hint = "name the file of your certificate authority in SSL_CERT_FILE"
    elif isinstance(err, requests.HTTPError):
        why = f"the server answered {err.response.status_code} {err.response.reason}"
    return InputError(f"{task}: {why}", hint=hint)
