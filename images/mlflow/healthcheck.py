"""Exit 0 when the server beside this process answers, else 1: what an image's HEALTHCHECK runs.

The address is the first argument, else ``HEALTHCHECK_URL``, else the tracking server's readiness endpoint.
Only the standard library, and little of it: this runs every few seconds for years.
"""

import http.client
import os
import sys

DEFAULT_URL = "http://127.0.0.1:5000/ready"
SECONDS = 5


def answer(url: str) -> tuple[int, str]:
    """The status and the first 200 characters that `url` (``http://host:port/path``) answers."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=SECONDS)
    connection.request("GET", f"/{path}")
    response = connection.getresponse()
    return response.status, response.read(200).decode(errors="replace")


def main() -> int:
    """The exit code; what went wrong goes to standard output, where `docker inspect` shows it."""
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HEALTHCHECK_URL") or DEFAULT_URL
    try:
        status, text = answer(url)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"{url}: {error}")
        return 1
    print(f"{url}: {status} {text}")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
