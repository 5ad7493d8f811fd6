"""The same numbers whatever the machine is set to: linear algebra on one thread.

A sum split over threads is rounded differently, and k-means makes a different topic of a last bit. The limit belongs
to the whole process, so the work under it goes one after another: otherwise the first to end would lift it for others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def steady() -> Iterator[None]:
    """Hold numpy, scipy and scikit-learn to one thread while inside; not to be nested."""
    with _ONE_AT_A_TIME, threadpool_limits(limits=1):
        yield
