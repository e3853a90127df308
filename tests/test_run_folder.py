"""Paths, whole files, locks: nothing half-written takes a place, and one run at a time uses a folder."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from bimangrasp.errors import InputError
from scale.store import durable_io, locks, run_folder
from scale.store.run_folder import RunFolder, file_name, parse_shard_name, shard_name


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path / "a run ü")
    made.prepare()
    return made


@pytest.mark.parametrize("code", ["mug", "grüner Becher", "a/b", "..", ".hidden", "100%", "x" * 400, "a\\b", "n\nl"])
def test_every_code_is_one_path_component_of_its_own(code):
    name = file_name(code)
    assert "/" not in name and not name.startswith(".") and len(name.encode()) < 200
    assert parse_shard_name(shard_name(code, 7, "ab" * 32)) == (name, 7, "ab" * 8)


def test_names_differ_where_codes_differ():
    codes = ["a/b", "a%2Fb", "a%252Fb", "x" * 400, "x" * 401, ".a", "%2Ea"]
    assert len({file_name(code) for code in codes}) == len(codes)


def test_write_replaces_a_file_as_a_whole(folder):
    folder.write(folder.manifest, b"old")
    folder.write(folder.manifest, b"new one")
    assert folder.manifest.read_bytes() == b"new one" and folder.remove_leftovers() == []


def test_a_full_disk_leaves_the_old_file_and_nothing_else(folder, monkeypatch):
    folder.write(folder.manifest, b"old")

    def full(fd, data, offset=None):
        os.pwrite(fd, bytes(data)[:2], 0)
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(durable_io, "write", full)
    with pytest.raises(OSError, match="no space"):
        folder.write(folder.manifest, b"new one")
    assert folder.manifest.read_bytes() == b"old"
    assert [path.name for path in folder.root.iterdir() if path.is_file()] == ["manifest.json"]


def test_what_is_being_written_can_be_deleted_at_once(folder):
    with pytest.raises(FileNotFoundError), folder.replacement(folder.manifest, 5):
        assert len(list(folder.root.glob(".tmp-*"))) == 1
        run_folder.remove_unfinished()
        assert not list(folder.root.glob(".tmp-*"))
    folder.write(folder.manifest, b"whole")
    run_folder.remove_unfinished()
    assert folder.manifest.read_bytes() == b"whole"


def test_a_file_is_synced_before_it_takes_its_place_and_its_folder_after(folder, monkeypatch):
    calls = []
    for name in ("write", "sync", "replace", "sync_folder"):
        inner = getattr(durable_io, name)
        monkeypatch.setattr(durable_io, name, lambda *a, _n=name, _f=inner: (calls.append(_n), _f(*a))[1])
    folder.write(folder.manifest, b"text")
    assert calls == ["write", "sync", "replace", "sync_folder"]


def test_a_file_is_read_back_after_it_was_synced_and_before_it_takes_its_place(folder, monkeypatch):
    calls = []
    for name in ("write", "sync", "replace", "sync_folder"):
        inner = getattr(durable_io, name)
        monkeypatch.setattr(durable_io, name, lambda *a, _n=name, _f=inner: (calls.append(_n), _f(*a))[1])

    def verify(path):
        calls.append("verify")
        return path.read_bytes()

    assert folder.write_verified(folder.manifest, b"text", verify) == b"text"
    assert calls == ["write", "sync", "verify", "sync", "replace", "sync_folder"]
    assert folder.manifest.read_bytes() == b"text"


def test_a_file_that_does_not_read_back_leaves_the_old_one(folder):
    folder.write(folder.manifest, b"old")

    def refuse(path):
        raise ValueError(f"{path} is not what was written")

    with pytest.raises(ValueError, match="not what was written"):
        folder.write_verified(folder.manifest, b"new one", refuse)
    assert folder.manifest.read_bytes() == b"old" and folder.remove_leftovers() == []


def test_damaged_files_are_moved_aside_never_over_each_other(folder):
    for n in range(3):
        folder.write(folder.final("mug"), b"bad %d" % n)
        folder.set_aside(folder.final("mug"))
        assert (folder.damaged / f"mug.h5.{n}").read_bytes() == b"bad %d" % n
    folder.set_aside(folder.final("mug"))  # it is gone
    assert len(list(folder.damaged.iterdir())) == 3


def test_launch_numbers_are_never_used_twice(folder):
    assert folder.next_launch() == 0
    folder.place(3, 11).mkdir()
    assert folder.next_launch() == 12


def test_the_second_run_is_told_who_holds_the_folder(folder):
    lock = locks.RunLock(folder)
    with pytest.raises(InputError, match=f"pid {os.getpid()} on .*started"):
        locks.RunLock(folder)
    lock.release()
    locks.RunLock(folder).release()


@pytest.mark.parametrize("skew", [-5000, 0, 5000])
def test_a_lock_of_another_machine_counts_while_its_heart_beats_whatever_its_clock_says(folder, monkeypatch, skew):
    monkeypatch.setattr(locks, "WATCH_S", 1.0)
    held = {"host": "elsewhere", "pid": 1, "boot_id": "x", "started": time.time(), "heartbeat": time.time() + skew}
    folder.run_lock.write_text(json.dumps(held))
    later = json.dumps(held | {"heartbeat": held["heartbeat"] + 5})
    beat = threading.Timer(0.3, folder.run_lock.write_text, [later])
    beat.start()
    with pytest.raises(InputError, match="pid 1 on elsewhere"):
        locks.RunLock(folder)
    beat.join()
    locks.RunLock(folder).release()  # it beats no more
    folder.run_lock.write_text(json.dumps(held | {"heartbeat": time.time()}))
    assert locks.running(folder)["pid"] == 1, "who only looks goes by the clocks"


def test_a_run_that_holds_a_folder_tells_that_it_lives(folder, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_S", 0.05)
    lock, seen = locks.RunLock(folder), set()
    deadline = time.monotonic() + 10
    while len(seen) < 3 and time.monotonic() < deadline:
        seen.add(locks.read_lock(folder)["heartbeat"])
    lock.release()
    assert len(seen) == 3 and folder.run_lock.read_bytes() == b""
    time.sleep(0.2)
    assert folder.run_lock.read_bytes() == b""


@pytest.mark.parametrize("left", [b"", b'{"host": "els', bytes(513), b'{"host": "\xff'])
def test_a_torn_lock_file_does_not_keep_the_folder(folder, left):
    folder.run_lock.write_bytes(left)
    assert locks.running(folder) is None
    locks.RunLock(folder).release()


def test_a_lock_whose_holder_died_is_not_held_by_whoever_got_its_process_id(folder):
    folder.run_lock.write_text(
        json.dumps({"host": socket.gethostname(), "pid": 1, "boot_id": locks.boot_id(), "started": 0})
    )
    assert locks.running(folder) is None
    lock = locks.RunLock(folder)
    assert locks.running(folder)["pid"] == os.getpid()
    lock.release()


HOLD = """
import sys
from scale.store.locks import hold_as_worker
from scale.store.run_folder import RunFolder
hold_as_worker(RunFolder(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_start_waits_for_the_workers_of_a_dead_run_and_names_those_that_stay(folder):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(InputError, match=str(child.pid)):
        locks.wait_for_orphans(folder, wait_s=0.1)
    child.stdin.close()
    locks.wait_for_orphans(folder, wait_s=20)
    child.wait()
