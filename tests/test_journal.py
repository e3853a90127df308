"""The journal: what was appended is told again, a torn tail is cut, and a full disk still takes a line."""

import errno
import os

import pytest

from scale.store import durable_io, journal
from scale.store.events import ObjectsIndexed, RoundSkipped, RunPaused
from scale.store.journal import Journal, Replay, read_manifest, replay, write_manifest
from scale.store.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    made = RunFolder(tmp_path)
    made.prepare()
    return made


LINE = b'{"event": "paused", "reason": "%s"}\n'


def read(folder):
    events = []
    return replay(folder, events.append), events


def names(folder):
    return [event.reason for event in read(folder)[1]]


def test_events_come_back_in_order(folder):
    opened = Journal(folder)
    opened.append(ObjectsIndexed(indices={"müg": 0}))
    opened.append(RoundSkipped(code="müg", round_id=3, traceback="no"))
    opened.close()
    first, second = read(folder)[1]
    assert first.indices == {"müg": 0} and (second.code, second.round_id, second.traceback) == ("müg", 3, "no")
    assert 0 < first.time <= second.time


def test_a_tail_torn_anywhere_is_cut_and_the_rest_stands(folder):
    opened = Journal(folder)
    opened.append(RunPaused(reason="one"))
    whole = folder.journal.read_bytes()
    opened.append(RunPaused(reason="two"))
    opened.close()
    both = folder.journal.read_bytes()
    for length in range(len(whole), len(both)):
        folder.journal.write_bytes(both[:length])
        assert names(folder) == ["one"]
        opened = Journal(folder)
        opened.append(RunPaused(reason="three"))
        opened.close()
        assert names(folder) == ["one", "three"]


def test_a_bad_line_before_the_tail_is_counted_and_left(folder):
    folder.journal.write_bytes(LINE % b"one" + b"#bad\n" + LINE % b"two")
    assert names(folder) == ["one", "two"] and read(folder)[0].bad_lines == 1


def test_replay_changes_nothing(folder):
    folder.journal.write_bytes(LINE % b"one" + b'{"ev')
    assert names(folder) == ["one"] and folder.journal.read_bytes().endswith(b'{"ev')
    assert read(RunFolder(folder.root / "missing")) == (Replay(), [])


def test_a_line_is_written_then_synced(folder, monkeypatch):
    opened, calls = Journal(folder), []
    for name in ("write", "sync"):
        inner = getattr(durable_io, name)
        monkeypatch.setattr(durable_io, name, lambda *a, _n=name, _f=inner: (calls.append(_n), _f(*a))[1])
    opened.append(RunPaused(reason="one"))
    assert calls == ["write", "sync"]


def test_a_full_disk_costs_the_reserve_not_the_line(folder, monkeypatch):
    opened, write = Journal(folder), durable_io.write
    assert folder.reserve.stat().st_blocks * 512 >= 1 << 20

    def full(fd, data, offset=None):
        if folder.reserve.exists():
            os.write(fd, bytes(data)[:5])
            raise OSError(errno.ENOSPC, "no space left")
        write(fd, data, offset)

    monkeypatch.setattr(durable_io, "write", full)
    opened.append(RunPaused(reason="one"))
    assert names(folder) == ["one"] and not folder.reserve.exists()


def test_a_torn_manifest_is_no_error(folder):
    write_manifest(folder, {}, {})
    assert read_manifest(folder)["format_version"] == journal.VERSION
    folder.manifest.write_bytes(folder.manifest.read_bytes()[:9])
    assert read_manifest(folder) == {}


def full_disk(monkeypatch, folder, has_room):
    """Lets os.write fail half-way with ENOSPC while the reserve is held; says `has_room()` when a reserve fits."""
    write, reserve = os.write, durable_io.reserve

    def failing(fd, data):
        if not has_room() and folder.reserve.exists():
            write(fd, bytes(data)[:5])
            raise OSError(errno.ENOSPC, "no space left")
        return write(fd, data)

    def reserving(fd, length):
        if not has_room():
            raise OSError(errno.ENOSPC, "no space left")
        reserve(fd, length)

    monkeypatch.setattr(os, "write", failing)
    monkeypatch.setattr(durable_io, "reserve", reserving)


def test_the_reserve_comes_back_when_there_is_room(folder, monkeypatch):
    opened, room = Journal(folder), [False]
    full_disk(monkeypatch, folder, lambda: room[0])
    opened.append(RunPaused(reason="one"))
    opened.append(RunPaused(reason="two"))
    assert names(folder) == ["one", "two"] and not folder.reserve.exists() and folder.remove_leftovers() == []
    room[0] = True
    opened.append(RunPaused(reason="three"))
    assert names(folder) == ["one", "two", "three"] and folder.reserve.stat().st_size == 1 << 20


def test_a_journal_opens_on_a_full_disk_without_its_reserve(folder, monkeypatch):
    full_disk(monkeypatch, folder, lambda: False)
    Journal(folder).append(RunPaused(reason="one"))
    assert names(folder) == ["one"] and not folder.reserve.exists()


def test_a_line_that_finds_no_room_at_all_leaves_no_half_of_it(folder, monkeypatch):
    opened, write = Journal(folder), os.write
    opened.append(RunPaused(reason="one"))

    def full(fd, data):
        write(fd, bytes(data)[:5])
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="no space"):
        opened.append(RunPaused(reason="two"))
    assert read(folder)[0].torn_bytes == 0 and names(folder) == ["one"]
