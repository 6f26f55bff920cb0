"""One application under uvicorn: `python -m suite.one_server NAME REDIS POSTGRES FOLDER` prints its port.

The server is uvicorn with uvloop and httptools, one worker, no access log.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import uvicorn

from suite.apps import named
from suite.servers import Places


def main() -> None:
    """Serve until a signal."""
    name, redis, postgres, folder = sys.argv[1:]
    [app] = named(name)
    config = uvicorn.Config(
        app.make(Places(redis, postgres, Path(folder))),
        log_level="error",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
