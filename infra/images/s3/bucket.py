#!/usr/bin/env python3
"""``bucket.py make``: make the bucket as soon as the S3 server answers; ``bucket.py healthy``: is it there?"""

import sys
import time
import urllib.error
import urllib.request

URL = "http://127.0.0.1:4566/strandloop"


def status(method: str) -> int:
    """What the server answers; 0 where nothing does."""
    try:
        with urllib.request.urlopen(urllib.request.Request(URL, method=method), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


if sys.argv[1] == "healthy":
    sys.exit(status("HEAD") != 200)
while status("HEAD") != 200:
    status("PUT")
    time.sleep(0.2)
