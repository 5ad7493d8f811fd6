"""Facts about the fold on a cluster: real workers, a real Prefect, and the policy of one process to the last bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bandits.config import load_config
from bandits.errors import ConfigError
from bandits.home import Home
from bandits.learners.doubly_robust import Parameters
from bandits.snapshots.manifest import content_hash
from bandits.training.fold import Logged
from bandits.training.training import prepare, train
from bandits.types import Scope
from bandits.warehouse.loading import load
from flows.train import on_cluster
from tests.flows.conftest import ROOT
from tests.training.rounds import entries

distributed = pytest.importorskip("distributed")
pytest.importorskip("prefect_dask")

SCOPE = Scope("demo", "main", "model_routing")
DAY = 100 * 86_400.0
RUN = "import json, sys; from flows.train import train; print(json.dumps(train('demo', now={now}, part={part})))"


@pytest.fixture
def world(tmp_path, monkeypatch, api):
    """A home with 600 decisions over five days."""
    monkeypatch.setenv("PILOTAGE_HOME", str(tmp_path / "home"))
    home = Home(tmp_path / "home")
    domain = load_config(ROOT / "pilotage.toml").domains[SCOPE.domain]
    with home.open_record() as record:
        record.append(*entries(600, SCOPE, domain.features, domain.arm_names, DAY))
        load(record, home.warehouse)
    return home, domain


def run(part: int) -> dict:
    """The flow in a process of its own, as a schedule would run it."""
    command = [sys.executable, "-c", RUN.format(now=2 * DAY, part=part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_folds_the_same_policy_as_one_process(world, tmp_path, monkeypatch):
    """Three parts over two workers, one part in one process, and the whole log in memory: one hash."""
    home, domain = world
    (log,) = Logged(home.warehouse, SCOPE, domain, 2 * DAY).batches()
    in_memory = content_hash(train(prepare(log, domain, 200), Parameters()).policy.freeze().arrays)

    alone = run(part=100_000)
    with distributed.LocalCluster(2, processes=True, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.setenv("PILOTAGE_CONFIG", str(_configured(tmp_path, cluster.scheduler_address)))
        spread = run(part=200)
        with distributed.Client(cluster) as client:
            worked = client.run(lambda dask_worker: dask_worker.state.transition_counter)

    assert alone["content"] == spread["content"] == in_memory
    assert spread["rounds"] == len(log)
    assert len(worked) == 2
    assert all(worked.values())  # both really folded


def test_an_address_of_nonsense_is_refused(tmp_path):
    """When the file is read, not in the night."""
    with pytest.raises(ConfigError, match=r"night\.cluster: .* but got 'nowhere'"):
        load_config(_configured(tmp_path, "nowhere"))


def test_without_the_extra_a_cluster_is_an_error_that_says_what_to_install(monkeypatch):
    """Nothing falls back silently: a night in one process may take all day."""
    monkeypatch.setitem(sys.modules, "prefect_dask", None)

    with pytest.raises(ConfigError, match=r"pip install 'pilotage\[distributed\]'"):
        on_cluster("tcp://127.0.0.1:8786")


def _configured(folder: Path, address: str) -> Path:
    text = (ROOT / "pilotage.toml").read_text(encoding="utf-8")
    assert "\n[night]\n" in text
    path = folder / "pilotage.toml"
    path.write_text(text.replace("\n[night]\n", f'\n[night]\ncluster = "{address}"\n'), encoding="utf-8")
    return path
