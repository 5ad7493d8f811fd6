"""Small matrices gain nothing from threads, and lose much where many tests share few cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
