"""The length limit of Unix socket paths."""

import os
from pathlib import Path

# sun_path is 108 bytes on Linux and 104 on macOS, including the terminating zero.
MAX_SOCKET_PATH_BYTES = 103


def fits_socket_path(path: Path) -> bool:
    """Whether a socket can have this path on Linux and macOS."""
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
