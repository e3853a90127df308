"""Workers on the nodes of a cluster: what every engine holds, what is lost with a node, and runs with equal bytes.

Two nodes of this machine stand in for two hosts. They have folders of their own, and may open nothing of the run's.
"""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest
from conftest import SMALL
from engine_laws import EngineLaws, crew, events, heard, job, next_event, started, words
from run_tools import events as journal
from stub_judge import StubJudge
from stub_rounds import Stub

import scale
from bimangrasp.errors import InputError
from scale.engine.devices import Device
from scale.engine.interfaces import Failed, Halved, Joined, Lost, Ready, Sealed, Step, Unusable
from scale.errors import RunError
from scale.store.run_folder import RunFolder

pytest.importorskip("ray", reason="engine=ray needs Ray, which is not installed")
from ray.cluster_utils import Cluster  # noqa: E402

from scale.cluster import connection, ray_engine  # noqa: E402
from scale.cluster.agent import Answer, Hello, Said, versions  # noqa: E402
from scale.cluster.connection import Gone, Nodes  # noqa: E402
from scale.cluster.layout import Node  # noqa: E402
from scale.cluster.ray_engine import RayEngine  # noqa: E402

HERE = Path(__file__).resolve().parent
QUICK_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}
"""A node that is gone is noticed after two seconds, not after fifteen."""
GUARD = """
import os, sys
def refuse(event, arguments, forbidden=os.environ.get("BIMANGRASP_TEST_FORBIDDEN", "")):
    if event == "open" and forbidden and str(arguments[0]).startswith(forbidden):
        sys.stderr.write(f"opened {arguments[0]}\\n")
        os._exit(99)
sys.addaudithook(refuse)
"""
OVERRIDES = "engine=ray", "ray.lease_s=5"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The folder of all run folders, which processes on nodes may not open."""
    return tmp_path_factory.mktemp("unreachable")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, root):
    guard = tmp_path_factory.mktemp("guard")
    (guard / "sitecustomize.py").write_text(GUARD)
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(guard), str(HERE), str(HERE.parent)])
    os.environ["BIMANGRASP_TEST_FORBIDDEN"] = str(root)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK_CHECKS})
    try:
        made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def folder(root, tmp_path):
    made = RunFolder(root / tmp_path.name)
    made.prepare()
    return made


@pytest.fixture
def config_of(small_config, cluster, tmp_path, root):
    def build(*overrides, **settings):
        places = {"ray.address": cluster.address, "ray.scratch": str(tmp_path / "scratch"), "gpus": "auto"}
        return small_config(*OVERRIDES, *overrides, output_root=str(root / tmp_path.name), **(places | settings))

    return build


@pytest.fixture
def engine_of(config_of, folder):
    made = []

    def build(stub, slots=1, **limits):
        made.append(RayEngine(config_of(gpus=f"[{','.join(['cpu'] * slots)}]"), False, False))
        pool = made[-1].pool(folder, crew(stub, platforms=[{"kernels": "stub-1"}], **limits))
        deadline = time.monotonic() + 60
        while not all(map(pool.has, range(slots))) and time.monotonic() < deadline:
            list(events([pool], 0.2))
        return folder, pool

    yield build
    for engine in made:
        engine.close()


class TestNodes(EngineLaws):
    """The laws, with processes on nodes."""


# ---- what is lost


def processes(marker):
    """The processes of this machine whose command line has this in it: pid -> parent's pid."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, stat = (entry / "cmdline").read_bytes(), (entry / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        if marker in words and ") Z" not in stat:
            found[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    return found


def agents(under=None):
    """The agents of a node: pid -> parent's pid."""
    return {pid: parent for pid, parent in processes(b"ray::Agent").items() if under in (None, parent)}


def workers_of(agents_of):
    return {pid: parent for pid, parent in processes(b"spawn_main").items() if parent in agents_of}


def raylet(node):
    return node.all_processes["raylet"][0].process.pid


def wait_until(has_come, within=60.0):
    deadline = time.monotonic() + within
    while not has_come() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert has_come()


@pytest.mark.slow
def test_of_an_agent_that_is_killed_its_slot_is_lost_and_another_joins(engine_of):
    _, pool = engine_of(Stub(delay=600))
    pool.assign(started(pool), job(0))
    next_event(pool, Step)
    (agent,) = agents()
    (worker,) = workers_of([agent])
    os.kill(agent, signal.SIGKILL)
    lost = heard(pool, Lost)[-1]
    assert lost.slot == 0 and lost.process.job.round_id == 0 and pool.workers == {}
    wait_until(lambda: worker not in processes(b""), within=5)
    seen = words(pool, 5)
    assert {(event.slot, type(event.message)) for event in seen} == {(1, Joined)}, "nothing is heard of what is lost"


@pytest.mark.slow
def test_an_agent_whose_parent_does_not_ask_ends_with_its_processes_and_its_folder(engine_of, tmp_path):
    _, pool = engine_of(Stub(delay=600))
    pool.assign(started(pool), job(0))
    next_event(pool, Step)
    (agent,) = agents()
    kin = [agent, *workers_of([agent])]
    os.kill(agent, signal.SIGSTOP)
    lost = heard(pool, Lost)[-1]
    assert "no answer for 5 s" in lost.message.reason
    wait_until(lambda: not set(kin) & set(processes(b"")), within=10)  # who is frozen cannot be asked to end
    started(pool, heard(pool, Joined)[-1].slot)


# ---- what the parent makes of it, with a stand-in for the cluster


class FakeConnection:
    """A cluster of which the test says what comes."""

    def __init__(self, config):
        self.wake, self._waker = Pipe(duplex=False)
        self.asked, self.commands, self.posts, self.ended = {}, [], [], []

    def nodes(self):
        return []

    def check(self, nodes):
        pass

    def listen(self):
        pass

    def start(self, number, name, plan, terms):
        self.asked[number] = plan, terms

    def tell(self, number, *commands):
        self.commands += [(number, command) for command in commands]

    def post(self):
        while self.posts:
            yield self.posts.pop(0)

    def end(self, numbers):
        self.ended += numbers

    def end_aside(self, number):
        self.ended.append(number)

    def drop(self, number):
        self.ended.append(number)

    def close(self):
        pass


@pytest.fixture
def fake(small_config, tmp_path, monkeypatch):
    """An engine on nodes that the test names: fake(gpus="auto", nodes=2) -> engine, its connection, a pool."""
    monkeypatch.setattr(ray_engine, "Connection", FakeConnection)

    def build(nodes=2, stub=None, is_hello=True, **settings):
        config = small_config(engine="ray", **({"gpus": "auto", "ray.address": "head:1"} | settings))
        engine = RayEngine(config, False, False)
        folder = RunFolder(tmp_path / "run")
        folder.prepare()
        pool = engine.pool(folder, crew(stub or Stub()))
        engine.link = engine._connection
        engine.link.posts.append((-1, Nodes([Node(str(i), f"host-{i}", 1, 0) for i in range(nodes)])))
        seen = list(pool.events_of([], 0))
        if is_hello:
            engine.link.posts += [(number, hello(number)) for number in engine.link.asked]
            seen += pool.events_of([], 0)
        return engine, pool, seen

    return build


def hello(number, **differing):
    return Hello(Device(f"host-{number} cpu", ""), versions() | differing)


def says(number, slot, message, launch=0, **files):
    return number, Answer([Said("worker", slot, launch, message, files)], {})


@pytest.mark.parametrize("kind", [Lost, Unusable])
def test_a_slot_is_not_used_between_its_loss_and_word_of_it(fake, kind):
    engine, pool, _ = fake(nodes=3)
    for number in range(3):
        engine.link.posts.append(says(number, number, Ready({"kernels": "a"}), pool.workers[number].launch))
    list(pool.events_of([], 0))
    assert [one.slot for one in pool.idle()] == [0, 1, 2]
    full = Failed("mug", 0, "OSError: no room", errno.ENOSPC)
    engine.link.posts += [says(0, 0, Halved("mug", 0, 4), pool.workers[0].launch)]
    engine.link.posts += [(1, Gone("it fell over")) if kind is Lost else says(1, 1, full, pool.workers[1].launch)]
    heard_so_far = pool.events_of([], 0)
    assert next(heard_so_far).slot == 0
    assert not pool.has(1) and [one.slot for one in pool.idle()] == [0, 2]
    assert [(event.slot, type(event.message)) for event in heard_so_far] == [(1, kind)]


def test_the_clocks_of_the_start_begin_at_the_first_look(fake, monkeypatch):
    now = time.monotonic
    engine, _, _ = fake(is_hello=False)
    assert not engine.is_settled("worker"), "nodes that were there at the start have not joined"
    engine.link.posts.append((0, hello(0)))
    engine.look()
    assert not engine.is_settled("worker"), "never who is first"
    monkeypatch.setattr(ray_engine.time, "monotonic", lambda: now() + ray_engine.JOIN_S + 1)
    assert engine.is_settled("worker")


def test_a_long_way_to_the_first_look_is_no_want_of_nodes(small_config, monkeypatch, tmp_path):
    now = time.monotonic
    monkeypatch.setattr(ray_engine, "Connection", FakeConnection)
    engine = RayEngine(small_config(engine="ray", gpus="auto"), False, False)
    monkeypatch.setattr(ray_engine.time, "monotonic", lambda: now() + 3600)
    assert list(engine.pool(RunFolder(tmp_path), crew(Stub())).events_of([], 0)) == []


def test_all_that_is_lost_at_once_is_one_incident_and_three_in_a_row_end_the_use_of_a_node(fake, monkeypatch):
    monkeypatch.setattr(ray_engine, "RESTART_S", 0)
    engine, pool, _ = fake(nodes=1, gpus="[cpu]")
    for turn in range(3):
        (number,) = engine._agents
        engine.link.posts += [(number, Gone(f"fell over {turn}"))] * 2
        events_heard = list(pool.events_of([], 0))
        assert len(engine._agents) == (1 if turn < 2 else 0)
    assert "node host-0 is used no more" in events_heard[-1].message.reason


def test_a_node_that_was_cut_off_loses_its_eight_agents_in_one_incident(fake, monkeypatch):
    monkeypatch.setattr(ray_engine, "RESTART_S", 0)
    engine, pool, _ = fake(nodes=0)
    engine._demand = engine._demand._replace(on_gpus=True)
    engine.link.posts.append((-1, Nodes([Node("0", "host-0", 8, 8)])))
    engine.look()
    engine.link.posts += [(number, hello(number)) for number in engine.link.asked]
    engine.look()
    engine.link.posts += [(number, Gone("no answer")) for number in engine.link.asked]
    lost = [event for event in pool.events_of([], 0) if isinstance(event.message, Lost)]
    assert len(lost) == 8 and {event.message.reason for event in lost} == {"no answer"} and len(engine._agents) == 8


def test_what_is_done_on_a_node_forgets_its_losses(fake, monkeypatch):
    monkeypatch.setattr(ray_engine, "RESTART_S", 0)
    engine, pool, _ = fake(nodes=1)
    for _ in range(4):
        (number,) = engine._agents
        (slot,) = engine._agents[number].slots["worker"]
        engine.link.posts += [
            (number, hello(0)),
            (number, Answer([Said("worker", slot, 9, Sealed("m", 0, "x", 1), {})], {})),
        ]
        list(pool.events_of([], 0))
        engine.link.posts.append((number, Gone("fell over")))
        list(pool.events_of([], 0))
    assert len(engine._agents) == 1


def test_the_share_of_a_node_on_another_platform_goes_to_another_node(fake):
    engine, pool, _ = fake(nodes=3, gpus="[cpu]", is_hello=False)
    pool._choice.chosen = {"kernels": "folder"}
    engine.link.posts.append((0, hello(0)))
    list(pool.events_of([], 0))
    pool.start(0)
    engine.link.posts.append(says(0, 0, Ready({"kernels": "other"})))
    (unusable,) = pool.events_of([], 0)
    assert "kernels folder against other" in unusable.message.reason and engine.link.ended == [0]
    plans = [plan.node.node_id for plan, _ in engine.link.asked.values()]
    assert plans[0] != plans[1] and len(plans) == 2


def test_why_agents_cannot_start_is_told(fake, monkeypatch):
    engine, pool, _ = fake(nodes=1, is_hello=False)
    engine.link.posts.append((0, Gone("PermissionError: /proc/nowhere")))
    (lost,) = pool.events_of([], 0)
    assert "PermissionError" in lost.message.reason and pool.devices[lost.slot].label == "host-0 cpu"
    now = time.monotonic
    monkeypatch.setattr(ray_engine.time, "monotonic", lambda: now() + 700)
    with pytest.raises(RunError, match=r"startup_timeout_s\).*PermissionError"):
        list(pool.events_of([], 0))


def test_a_node_that_joins_with_other_versions_is_refused_by_name(fake):
    engine, pool, _ = fake(nodes=1, is_hello=False)
    engine.link.posts.append((0, hello(0, ray="1.0.0")))
    (lost,) = pool.events_of([], 0)
    assert "node host-0 has other versions (ray 1.0.0 there" in lost.message.reason and not engine._agents


def test_files_are_sent_once_and_again_after_something_went_wrong_with_them(fake, tmp_path):
    engine, _, _ = fake(nodes=1)
    mesh = tmp_path / "a.obj"
    mesh.write_bytes(b"1")
    sent = [engine.files_for(0, ("worker", 0), [mesh])[1] for _ in range(2)]
    assert list(sent[0].values()) == [("a.obj", b"1")] and sent[1] == {}
    mesh.write_bytes(b"22")
    assert list(engine.files_for(0, ("worker", 0), [mesh])[1].values()) == [("a.obj", b"22")]
    engine.link.posts.append(says(0, 0, Failed("mug", 0, "", errno.ENOENT), launch=99))
    engine.look()
    assert engine.files_for(0, ("worker", 0), [mesh])[1] != {}


def test_files_of_jobs_under_way_are_never_forgotten(fake, tmp_path):
    engine, _, _ = fake(nodes=1)
    first = tmp_path / "first.obj"
    first.write_bytes(b"first")
    known, _, _ = engine.files_for(0, ("worker", 0), [first])
    forgotten = []
    for number in range(2 * ray_engine.KEPT_FILES):
        path = tmp_path / f"{number}.obj"
        path.write_bytes(f"{number}".encode())
        forgotten += engine.files_for(0, ("worker", 1), [path])[2]
    assert known[first][0] not in forgotten and len(set(forgotten)) == len(forgotten) > 0
    assert len(engine._agents[0].files) <= ray_engine.KEPT_FILES + 2


def test_a_full_disk_of_the_run_is_no_failure_of_the_node(fake, monkeypatch):
    engine, pool, _ = fake(nodes=1)
    pool.workers[0].has_job(job(0))

    def full(path, data):
        raise OSError(errno.ENOSPC, "no room", str(path))

    monkeypatch.setattr(pool._folder, "write", full)
    name = f"shards/worker_0_0/mug.000000.{hashlib.sha256(b'whole').hexdigest()[:16]}.h5"
    engine.link.posts.append(says(0, 0, Sealed("mug", 0, name, 1.0), **{name: b"whole"}))
    (event,) = pool.events_of([], 0)
    assert isinstance(event.message, Failed) and event.message.errno == errno.ENOSPC
    assert pool.has(0) and list(engine._agents) == [0]


def test_bytes_that_came_otherwise_than_their_name_promises_are_a_failed_attempt(fake):
    engine, pool, _ = fake(nodes=1)
    pool.workers[0].has_job(job(0))
    name = "shards/worker_0_0/mug.000000.0123456789abcdef.h5"
    engine.link.posts.append(says(0, 0, Sealed("mug", 0, name, 1.0), **{name: b"torn"}))
    (event,) = pool.events_of([], 0)
    assert isinstance(event.message, Failed) and "other bytes" in event.message.traceback
    assert not (pool._folder.root / name).exists()


# ---- whole runs

SETTINGS = {"object_code_list": "[bowl,mug,storage_bin]", "target_count_per_object": 24}


@pytest.fixture
def same_bytes(small_config):
    """Compares the final files of a run with those of one on this machine with the same settings."""

    def compare(report, *overrides, judge=None, **settings):
        config = small_config(*overrides, exp_name="local", **settings)
        local = scale.run(config, maker=Stub(), judge=judge and StubJudge())
        assert [path.read_bytes() for path in report.paths] == [path.read_bytes() for path in local.paths]

    return compare


def run_in_thread(config, stub):
    """A run beside the test; nothing of it may need the main thread."""
    done = []
    thread = threading.Thread(target=lambda: done.append(scale.run(config, maker=stub)), daemon=True)
    thread.start()
    return thread, done


@pytest.mark.slow
def test_a_run_over_two_nodes_has_the_bytes_of_one_machine(config_of, same_bytes):
    report = scale.run(config_of(**SETTINGS), maker=Stub())
    assert report.exit_code == 0
    made = [event for event in journal(report.run_dir) if event["event"] == "done"]
    assert {event["worker"] for event in made} == {0, 1}
    same_bytes(report, **SETTINGS)


@pytest.mark.slow
def test_rounds_are_tested_on_nodes_with_the_same_bytes(config_of, same_bytes):
    physics = {**SETTINGS, "filter": "physics"}
    report = scale.run(config_of(**physics), maker=Stub(), judge=StubJudge())
    assert report.exit_code == 0, str(report)
    assert {event["validator"] for event in journal(report.run_dir, "ready") if "validator" in event} == {0, 1}
    same_bytes(report, judge=True, **physics)


@pytest.mark.slow
def test_a_node_that_is_gone_costs_no_attempt_and_one_that_joins_works(cluster, config_of, same_bytes, tmp_path):
    dying = cluster.add_node(num_cpus=1)
    # the first rounds of the mug wait until the new node has begun a round
    faults = {("mug", number): ["until:*joined*:1"] for number in range(6)}
    config = config_of("max_kills=1", "max_retries=0", **SETTINGS)
    thread, done = run_in_thread(config, Stub(faults=faults, marks=str(tmp_path)))
    run_dir = Path(config.output_root) / config.exp_name
    wait_until(lambda: len(journal(run_dir, "ready")) == 3)
    wait_until(lambda: any(event["code"] == "bowl" for event in journal(run_dir, "done")))
    cluster.remove_node(dying, allow_graceful=False)
    wait_until(lambda: journal(run_dir, "lost"))
    late = cluster.add_node(num_cpus=1)
    wait_until(lambda: len(journal(run_dir, "ready")) == 4)
    (tmp_path / "joined").touch()
    thread.join(120)
    cluster.remove_node(late)
    (report,) = done
    assert report.exit_code == 0 and report.skips == [], str(report)
    (lost,) = journal(run_dir, "lost")
    new = {event["worker"] for event in journal(run_dir, "ready")} - {0, 1, 2}
    assert new & {event["worker"] for event in journal(run_dir, "done")}, "the new node has made a round"
    assert lost["worker"] not in new and journal(run_dir, "fail") == journal(run_dir, "died") == []
    same_bytes(report, **SETTINGS)


@pytest.mark.slow
def test_a_node_that_was_frozen_is_not_heard_when_it_is_back(cluster, config_of, same_bytes, tmp_path):
    node = cluster.add_node(num_cpus=1)
    faults = {("mug", number): ["until:*thawed*:1"] for number in range(6)}
    config = config_of(**SETTINGS)
    thread, done = run_in_thread(config, Stub(faults=faults, marks=str(tmp_path)))
    run_dir = Path(config.output_root) / config.exp_name
    wait_until(lambda: len(journal(run_dir, "ready")) == 3)
    (agent,) = agents(raylet(node))
    frozen = [raylet(node), agent, *workers_of([agent])]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: journal(run_dir, "lost"))
    time.sleep(config.ray.lease_s)
    for pid in reversed(frozen):
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not {agent, *frozen[2:]} & set(processes(b"")), within=10)
    (tmp_path / "thawed").touch()
    thread.join(120)
    cluster.remove_node(node, allow_graceful=False)
    assert done[0].exit_code == 0 and done[0].skips == []
    same_bytes(done[0], **SETTINGS)


@pytest.mark.slow
def test_a_node_without_room_is_set_aside_by_name_and_the_run_goes_on(config_of, same_bytes, tmp_path):
    faults = {("bowl", 0): ["full"], ("mug", 0): ["slow:2"]}
    report = scale.run(config_of(**SETTINGS), maker=Stub(faults=faults, marks=str(tmp_path)))
    assert report.exit_code == 0 and report.skips == []
    (aside,) = journal(report.run_dir, "set_aside")
    assert "has no room" in aside["reason"] and not journal(report.run_dir, "paused")
    same_bytes(report, **SETTINGS)


@pytest.mark.slow
def test_a_node_of_another_platform_is_named_and_makes_no_round(cluster, config_of, same_bytes):
    node = cluster.add_node(num_cpus=1, env_vars={"STUB_PLATFORM": "stub-2"})
    try:
        report = scale.run(config_of(**SETTINGS), maker=Stub())
    finally:
        cluster.remove_node(node)
    assert report.exit_code == 0
    (aside,) = journal(report.run_dir, "set_aside")
    assert "kernels stub-1 against stub-2" in aside["reason"]
    assert aside["worker"] not in {event["worker"] for event in journal(report.run_dir, "done")}
    assert any("another platform" in note for note in report.notes)
    same_bytes(report, **SETTINGS)


PARENT = """
import sys
from conf import load
from stub_rounds import Stub
import scale
if __name__ == "__main__":
    report = scale.run(load(sys.argv[1:]), maker=Stub(delay=0.5))
    sys.exit(report.exit_code)
"""


def as_command(config_of, tmp_path, **settings):
    """The process of a run, and its folder."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    config = config_of(**SETTINGS, **settings)
    words = {"output_root": config.output_root, "ray.address": config.ray.address, "ray.scratch": config.ray.scratch}
    values = SMALL | SETTINGS | {"gpus": "auto"} | words | settings
    overrides = ["experiment=null", "filter=none", *OVERRIDES, *(f"{key}={value}" for key, value in values.items())]
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    process = subprocess.Popen(
        [sys.executable, str(script), *overrides],
        env=os.environ | {"PYTHONPATH": path, "BIMANGRASP_TEST_FORBIDDEN": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, Path(config.output_root) / config.exp_name, config


@pytest.mark.slow
def test_with_a_killed_parent_all_are_gone_and_the_same_command_goes_on(config_of, same_bytes, tmp_path):
    process, run_dir, config = as_command(config_of, tmp_path)
    wait_until(lambda: journal(run_dir, "done"))
    kin = {*agents(), *workers_of(agents())}
    assert len(kin) == 4
    process.kill()
    process.wait()
    wait_until(lambda: not kin & set(processes(b"")), within=5)
    left = list((tmp_path / "scratch").glob("bimangrasp_agents_*/*"))
    assert len(left) == 2
    report = scale.run(config, maker=Stub())
    assert report.exit_code == 0 and not any(folder.exists() for folder in left)
    same_bytes(report, **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_preemption_ends_a_run_as_on_one_machine(config_of, tmp_path, number):
    process, run_dir, _ = as_command(config_of, tmp_path)
    wait_until(lambda: journal(run_dir, "done"))
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    assert journal(run_dir, "end")[-1]["exit_code"] == 143
    assert not journal(run_dir, "lost") and not agents()


@pytest.mark.slow
def test_without_an_address_a_cluster_is_started_for_the_run_and_ends_with_it(config_of, tmp_path):
    before = set(processes(b"raylet"))
    process, run_dir, _ = as_command(config_of, tmp_path, **{"ray.address": "", "gpus": "[cpu,cpu]"})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert len(list((run_dir / "final").glob("*.h5"))) == 3
    wait_until(lambda: set(processes(b"raylet")) <= before, within=20)


@pytest.mark.slow
def test_without_its_head_a_run_ends_with_one_and_says_so(config_of, tmp_path, same_bytes):
    own = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        process, run_dir, config = as_command(config_of, tmp_path, **{"ray.address": own.address})
        wait_until(lambda: journal(run_dir, "done"))
        own.head_node.kill_gcs_server()
        output, _ = process.communicate(timeout=90)
    finally:
        own.shutdown()
    assert process.returncode == 1, output
    assert "the head of the Ray cluster" in output and "the same command goes on" in output


# ---- what is refused


@pytest.mark.slow
def test_a_node_with_another_version_is_refused_by_name(config_of, monkeypatch):
    monkeypatch.setattr(connection, "versions", lambda: {"Python": "3.99.0"})
    with pytest.raises(InputError, match=r"node \S+ cannot take part \(Python 3\.\S+ there, 3.99.0 here\)"):
        scale.run(config_of(), maker=Stub())


@pytest.mark.slow
def test_gpus_that_no_node_has_are_refused(config_of):
    with pytest.raises(InputError, match="no node of the cluster has a GPU"):
        scale.run(config_of(gpus="gpu"), maker=Stub())


def test_an_address_where_nobody_listens_is_refused(config_of, monkeypatch):
    monkeypatch.setattr(connection, "CONNECT_S", 1.0)
    with pytest.raises(InputError, match="no Ray there within 1 s"):
        scale.run(config_of(**{"ray.address": "127.0.0.1:9"}), maker=Stub())
