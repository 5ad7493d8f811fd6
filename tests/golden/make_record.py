"""Writes the golden files of the record and the warehouse, as this version stores them.

Run it once per stored version, `python tests/golden/make_record.py`, and commit what it writes: tests read the old
files for ever, so a file of a version that was released is never written again.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import numpy as np

from bandits.record import tables as record_tables
from bandits.record.sql import SqlRecord
from bandits.testing.ports import ELSEWHERE, plain, sample_decision, sample_outcome
from bandits.types import Slot
from bandits.warehouse import loading as warehouse

HERE = Path(__file__).parent


def main() -> None:
    """Make them in a scratch folder, then put those in place that are not there yet."""
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch)
        with SqlRecord(f"sqlite:///{base}/record.db") as record:
            record.append(sample_decision("a"), sample_outcome("a"))
            record.append(sample_decision("b", forced=False, slot=Slot.STABLE), sample_decision("c", scope=ELSEWHERE))
            record.append(sample_outcome("b", quality=None, cost_usd=None, vote=-1, latency_s=0.25, source="user"))
            record.append(sample_decision("d", context=np.zeros(0, np.float32), excluded={}, forced=False))
            record.append(sample_outcome("c", scope=ELSEWHERE, time=1_790_000_777.0, quality=1.0, key="vote-7"))
            record.append(
                sample_outcome("a", arm="large", result="failed:timeout", key="attempt-1", output_tokens=None)
            )
            entries = [{"position": position, **plain(entry)} for position, entry in record.read()]
            warehouse.load(record, base / "warehouse.duckdb")
        warehouse.write_run(
            base / "warehouse.duckdb",
            {"id": "run-1", "scope": "acme/main/model_routing", "time": 7.5, "verdict": "hold", "report": {"n": 2}},
        )
        version = record_tables.VERSION
        _write(f"record-{version}.db", (base / "record.db").read_bytes())
        _write(f"record-{version}.json", json.dumps(entries, indent=1, ensure_ascii=False).encode() + b"\n")
        packed = gzip.compress((base / "warehouse.duckdb").read_bytes(), mtime=0)
        _write(f"warehouse-{warehouse.VERSION}.duckdb.gz", packed)


def _write(name: str, content: bytes) -> None:
    if not (HERE / name).exists():
        (HERE / name).write_bytes(content)


if __name__ == "__main__":
    main()
