"""What a cluster's nodes get, whose platform counts, and what is refused at the door; all without a cluster."""

import fcntl
import os
import shutil
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stub_rounds import Stub

import scale
from bimangrasp.errors import InputError
from scale.cluster import door, scratch
from scale.cluster.layout import VALIDATORS_PER_AGENT, Demand, Node, missing_agents
from scale.cluster.platform_choice import PlatformChoice
from scale.cluster.scratch import Scratch

AUTO = Demand(on_gpus=False, cpu_workers=None, workers_per_gpu=1, validators=None, tests_on_gpus=False)
GPUS = AUTO._replace(on_gpus=True)


def node(name, cpus=8, gpus=0):
    return Node(name, f"host-{name}", cpus, gpus)


def shares(agents):
    workers, validators = Counter(), Counter()
    for agent in agents:
        workers[agent.node.node_id] += agent.workers
        validators[agent.node.node_id] += agent.validators
    return workers, validators


def test_each_gpu_gets_an_agent_and_its_own_cpu():
    agents = missing_agents([node("a", 8, 2), node("b", 8, 1), node("c", 8)], [], GPUS._replace(workers_per_gpu=2))
    assert [(one.node.node_id, one.cpus, one.gpus, one.workers) for one in agents] == [
        ("a", 1, 1, 2),
        ("a", 1, 1, 2),
        ("b", 1, 1, 2),
    ]


def test_validators_get_the_cpus_that_no_worker_needs_of_all_nodes_sixteen_to_an_agent():
    agents = missing_agents([node("a", 40, 2), node("b", 5)], [], GPUS._replace(validators=0))
    workers, validators = shares(agents)
    assert workers == {"a": 2, "b": 0} and validators == {"a": 38, "b": 5}
    testing = [one.validators for one in agents if one.validators]
    assert max(testing) == VALIDATORS_PER_AGENT and sorted(testing) == [5, 6, 16, 16]
    assert agents[0].workers and agents[1].workers, "workers get their nodes first"


def test_a_node_whose_cpus_all_make_rounds_tests_beside_it():
    agents = missing_agents([node("a", 2)], [], AUTO._replace(validators=0))
    assert [(one.workers, one.validators, one.cpus) for one in agents] == [(2, 0, 2), (0, 1, 0)]


def test_validators_on_gpus_are_with_their_workers():
    agents = missing_agents([node("a", 8, 2)], [], GPUS._replace(validators=0, tests_on_gpus=True))
    assert [(one.workers, one.validators) for one in agents] == [(1, 1), (1, 1)]


def test_a_number_of_workers_is_spread_and_a_lost_one_goes_where_there_is_most_room():
    nodes, three = [node("a", 4), node("b", 4)], AUTO._replace(cpu_workers=3)
    agents = missing_agents(nodes, [], three)
    assert shares(agents)[0] == {"a": 2, "b": 1}
    left = [one for one in agents if one.node.node_id == "b"]
    assert shares(missing_agents(nodes[1:], left, three))[0] == {"b": 2}


NODES = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), min_size=1, max_size=6)
DEMANDS = st.builds(
    Demand,
    st.booleans(),
    st.none() | st.integers(1, 20),
    st.integers(1, 3),
    st.none() | st.integers(0, 60),
    st.booleans(),
)


@given(NODES, DEMANDS, st.data())
def test_what_is_there_is_never_asked_for_again_and_what_is_lost_is(sizes, demand, data):
    nodes = [node(str(number), *size) for number, size in enumerate(sizes)]
    agents = missing_agents(nodes, [], demand)
    assert missing_agents(nodes, agents, demand) == []
    if demand.cpu_workers and not demand.on_gpus:
        assert sum(shares(agents)[0].values()) == demand.cpu_workers
    if demand.on_gpus:
        assert sum(one.gpus for one in agents) == sum(one.gpus for one in nodes)
    if demand.validators and not demand.tests_on_gpus:
        assert sum(shares(agents)[1].values()) == demand.validators
    used = Counter()
    for one in agents:
        used[one.node.node_id] += one.cpus
    if not demand.on_gpus:
        assert all(used[one.node_id] <= one.cpus for one in nodes)
    if agents:
        lost = data.draw(st.sampled_from(agents))
        kept = list(agents)
        kept.remove(lost)
        again = missing_agents(nodes, kept, demand)
        assert tuple(map(sum, map(Counter.values, shares(again)))) == (lost.workers, lost.validators)


# ---- platforms


def test_the_folder_decides_else_the_most_slots_and_never_who_is_first():
    first, second = {"cpu": "a"}, {"cpu": "b"}
    known = PlatformChoice([second], allow_mixed=False)
    assert known.is_decided and known.refusal(second) == "" and "cpu b against a" in known.refusal(first)
    open_choice = PlatformChoice([], allow_mixed=False)
    assert not open_choice.is_decided
    open_choice.decide({0: first, 1: second, 2: second}, {0: "x cpu", 1: "y cpu", 2: "z cpu"})
    assert open_choice.chosen == second
    assert PlatformChoice([], allow_mixed=True).refusal(first) == ""


def test_a_tie_is_refused_with_both():
    with pytest.raises(InputError, match=r"\(x cpu\).*\(y cpu\).*cpu a against b.*allow_mixed_platform"):
        PlatformChoice([], False).decide({0: {"cpu": "a"}, 1: {"cpu": "b"}}, {0: "x cpu", 1: "y cpu"})


# ---- folders of agents


def test_a_folder_is_removed_only_when_its_agent_and_its_processes_are_gone(tmp_path):
    living = Scratch(str(tmp_path), "run_0")
    assert Scratch(str(tmp_path), "run_1").folder.root.exists() and living.folder.root.exists()
    dead = living.folder.root.with_name("run_2_dead")
    dead.mkdir()
    orphan = os.open(dead / "workers.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(orphan, fcntl.LOCK_SH)
    Scratch(str(tmp_path), "run_3")
    assert dead.exists(), "a process of it lives"
    os.close(orphan)
    Scratch(str(tmp_path), "run_4")
    assert not dead.exists() and living.folder.root.exists()
    living.remove()
    assert not living.folder.root.exists()


def test_two_agents_that_begin_together_leave_nothing_of_those_that_are_gone(tmp_path, monkeypatch):
    root = Scratch(str(tmp_path), "run_0").folder.root.parent
    dead = root / "run_1_dead"
    dead.mkdir()
    for name in ("agent.lock", "workers.lock"):
        (dead / name).touch()
    really = shutil.rmtree

    def slowly(folder: Path, ignore_errors: bool) -> None:
        """Deletes what it has listed, as rmtree does; the other agent begins after the first file."""
        monkeypatch.setattr(shutil, "rmtree", really)
        first, *others = sorted(folder.iterdir())
        first.unlink()
        scratch.remove_forsaken(root)
        for file in others:
            file.unlink(missing_ok=ignore_errors)
        with suppress(OSError):
            folder.rmdir()

    monkeypatch.setattr(shutil, "rmtree", slowly)
    scratch.remove_forsaken(root)
    assert [folder.name.split("_")[:2] for folder in root.iterdir()] == [["run", "0"]]


def test_what_an_agent_was_killed_over_is_deleted_by_the_next(tmp_path):
    root = Scratch(str(tmp_path), "run_0").folder.root.parent
    (root / ".gone-run_1_dead" / "shards").mkdir(parents=True)
    scratch.remove_forsaken(root)
    assert len(list(root.iterdir())) == 1


def test_files_keep_their_names_and_are_forgotten_by_hash(tmp_path):
    own = Scratch(str(tmp_path), "run")
    own.keep({"ab": ("mug.obj", b"1"), "cd": ("mug.obj", b"2")})
    assert own.path("ab", "mug.obj").read_bytes() == b"1" and own.path("cd", "mug.obj").read_bytes() == b"2"
    own.forget(["ab"])
    assert not own.path("ab", "mug.obj").exists() and own.path("cd", "mug.obj").exists()


# ---- the door


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"part": "1/2"}, "part=1/2 with engine=ray.*leave part out"),
        ({"gpus": "[0,1]"}, r"gpus=\[0, 1\] with engine=ray.*wanted auto"),
        ({"ray.address": "ray://host:10001"}, "wanted host:port"),
        ({"ray.address": "host"}, "wanted host:port"),
        ({"engine": "slurm"}, "engine='slurm'"),
        ({"ray.lease_s": 1}, "ray.lease_s=1"),
    ],
)
def test_settings_that_a_cluster_cannot_serve_are_refused(small_config, settings, words):
    with pytest.raises(InputError, match=words):
        scale.run(small_config(**({"engine": "ray"} | settings)), maker=Stub())


def test_without_the_extra_the_command_is_named(small_config, monkeypatch):
    monkeypatch.setattr(door, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"engine=ray needs Ray: pip install .*ray"):
        scale.run(small_config(engine="ray"), maker=Stub())


def test_a_plan_asks_no_cluster(small_config):
    plan = scale.plan(small_config(engine="ray", **{"ray.address": "nowhere.invalid:6379"}), maker=Stub())
    assert "on the nodes of a cluster" in str(plan)
