"""A search by a Ray cluster: a head and two workers, processes of their own on this machine."""

import threading
import time

import pytest
import ray
import searched
from conftest import REPO
from ray.cluster_utils import Cluster

from tfedge.cli import main
from tfedge.errors import UserError
from tfedge.search.ray_crew import Needs, Ray

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    # Nodes have their environment from here; the stage that pretends imports one of the tests'.
    monkeypatch.setenv("PYTHONPATH", f"{REPO}:{REPO / 'tests'}")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.workers = [made.add_node(num_cpus=1) for _ in range(2)]
    yield made
    ray.shutdown()
    made.shutdown()


def test_with_a_node_lost_midway_the_search_is_that_of_one_machine(cluster, tmp_path):
    alone = searched.pipeline(tmp_path / "alone", trials=24, epoch_s=0.05)
    expected = searched.search(alone, alone.parent / "build")
    file = searched.pipeline(tmp_path / "cluster", trials=24, epoch_s=0.05)
    lines = file.parent / "epochs.txt"

    def lose():
        while not lines.is_file() or len(lines.read_text().splitlines()) < 20:
            time.sleep(0.02)
        cluster.remove_node(cluster.workers[0], allow_graceful=False)

    losing = threading.Thread(target=lose)
    losing.start()
    told = searched.search(file, file.parent / "build", lambda: Ray(cluster.address, Needs()))
    losing.join(1)
    assert not losing.is_alive()  # it was lost while the search went on
    assert told["counts"]["proposed"] == 24
    assert [point["set"] for point in told["front"]] == [p["set"] for p in expected["front"]]
    assert told["counts"]["stages_made_twice"] == []


def test_what_no_node_has_is_refused_rather_than_waited_for(cluster):
    with pytest.raises(UserError, match="no node has CPU 64") as caught:
        Ray(cluster.address, Needs(cpus=64))
    assert "the nodes have" in str(caught.value)


def test_a_cluster_that_is_not_there_is_named(tmp_path, capsys):
    file = searched.pipeline(tmp_path)
    command = ["search", str(file), "--build-dir", str(tmp_path / "build"), "--ray", "auto"]
    assert main(command) == 2
    assert "ray start --head" in capsys.readouterr().err


def test_options_that_would_be_ignored_are_refused(tmp_path, capsys):
    file = str(searched.pipeline(tmp_path))
    for options, said in (
        (("--cpus", "2"), "means nothing without --ray"),
        (("--ray", "auto", "--workers", "2"), "means nothing with --ray"),
    ):
        assert main(["search", file, *options]) == 2
        assert said in capsys.readouterr().err
