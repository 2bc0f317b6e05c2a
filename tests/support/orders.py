"""Work for a process apart that goes wrong."""

from __future__ import annotations

import threading


def never_end(_order: bytes) -> bytes:
    """Wait for ever."""
    threading.Event().wait()
    return b""
