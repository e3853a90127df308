"""Checks the meshes of all objects before any worker starts, in parallel, and caches the reports by file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from bimangrasp.builtin import user_cache
from bimangrasp.errors import InputError
from bimangrasp.objects.config import ObjectConfig
from bimangrasp.objects.files import MeshReport, check_size
from scale.formatting import listed
from scale.screen import Stage, stage
from scale.settings.parsing import ObjectEntry

CHECK_VERSION = 1
"""Part of the cache key: increase it when `check_mesh` refuses or measures differently, to ignore older reports."""
SERIAL_MESHES = 64
"""Up to so many meshes are checked in this process: starting others takes longer."""
NAMED_MESHES = 10
"""So many bad meshes are named in one message."""


def check_objects(entries: list[ObjectEntry], config: ObjectConfig, *, remember: bool = True) -> dict[str, MeshReport]:
    """Returns code -> the report on its mesh, for meshes that two hands can grasp; tells on stderr of a long check.

    Args:
        entries: the objects of a run.
        config: their sizes.
        remember: whether new reports are written into the cache, which a dry run only reads.

    Raises:
        InputError: meshes that cannot be used, each with its reason.
    """
    _refuse(unreadable(entries))
    reports = {entry.code: report for entry in entries if (report := _remembered(entry.path)) is not None}
    new = [entry for entry in entries if entry.code not in reports]
    failures: dict[str, str] = {}
    with stage("checking meshes", len(new), "done") as checks:
        for entry, result in _checked(new, checks):
            if isinstance(result, MeshReport):
                reports[entry.code] = result
                if remember:
                    _remember(entry.path, result)
            else:
                failures[entry.code] = result
    _refuse(failures)
    _refuse(_wrong_sizes(entries, reports, config))
    return {entry.code: reports[entry.code] for entry in entries}


def cache_folder() -> Path:
    """Returns the folder of cached mesh reports: in BIMANGRASP_CACHE, else in the user's cache."""
    own = os.environ.get("BIMANGRASP_CACHE")
    if own:
        return Path(own) / "meshes"
    return user_cache() / "bimangrasp" / "meshes"


def unreadable(entries: list[ObjectEntry]) -> dict[str, str]:
    """Returns the cheap findings: files that are missing, empty or not to be read."""
    reasons = {}
    for code, path in entries:
        try:
            empty = path.stat().st_size == 0
        except OSError as error:
            reasons[code] = f"{path} cannot be read ({error.strerror})"
            continue
        if empty or not os.access(path, os.R_OK):
            reasons[code] = f"{path} {'is empty' if empty else 'cannot be read (permission)'}"
    return reasons


def _wrong_sizes(entries: list[ObjectEntry], reports: dict[str, MeshReport], config: ObjectConfig) -> dict[str, str]:
    """Returns the objects whose size makes no sense."""
    reasons = {}
    for entry in entries:
        try:
            check_size(reports[entry.code], config, entry.code)
        except InputError as error:
            reasons[entry.code] = str(error)
    return reasons


def _refuse(failures: dict[str, str]) -> None:
    """Raises an error that names all unusable meshes; returns if there are none."""
    if not failures:
        return
    named = sorted(failures.items())
    lines = [f"  {reason}" if repr(code) in reason else f"  object {code!r}: {reason}" for code, reason in named]
    rest = [f"  and {len(lines) - NAMED_MESHES} more"] if len(lines) > NAMED_MESHES else []
    head = f"{len(lines)} of the objects cannot be used; repair them or leave them out of the list:"
    raise InputError("\n".join([head, *lines[:NAMED_MESHES], *rest]))


def _checked(entries: list[ObjectEntry], checks: Stage) -> Iterator[tuple[ObjectEntry, MeshReport | str]]:
    """Yields each object with its report, or the reason why there is none, as they come."""
    if len(entries) <= SERIAL_MESHES:
        for entry in entries:
            with checks.on(entry.code):
                result = _check(str(entry.path))
            yield entry, result
        return
    cores = min(len(os.sched_getaffinity(0)), len(entries) // 4, 32)
    context = multiprocessing.get_context("spawn")
    leave_ctrl_c = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    with ProcessPoolExecutor(cores, mp_context=context, **leave_ctrl_c) as pool:
        waiting = {pool.submit(_check, str(entry.path)): entry for entry in entries}
        try:
            for future in as_completed(waiting):
                checks.advance()
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            left = [entry.code for future, entry in waiting.items() if not future.done() or future.exception()]
            raise InputError(
                f"a process that checked meshes died (out of memory?) at {listed(left, NAMED_MESHES)}; try "
                f"fewer objects at once: what was checked is remembered"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _check(path: str) -> MeshReport | str:
    """Returns a mesh's report, or why there is none."""
    from bimangrasp.objects.model import check_mesh  # here, because most refusals need no mesh library

    try:
        return check_mesh(path)
    except InputError as error:
        return str(error)


def _cache_file(path: Path) -> Path:
    """Returns the cache file of the report on a mesh file, keyed by its path, size and time of change."""
    state = path.stat()
    parts = (CHECK_VERSION, MeshReport._fields, str(path.absolute()), state.st_size, state.st_mtime_ns)
    name = hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()
    return cache_folder() / name[:2] / f"{name}.json"


def _remembered(path: Path) -> MeshReport | None:
    """Returns the report in the cache; None if there is none or its hash does not match."""
    try:
        digest, _, text = _cache_file(path).read_text(encoding="utf-8").partition("\n")
    except (OSError, ValueError):
        return None
    if digest != hashlib.sha256(text.encode()).hexdigest():
        return None
    content = json.loads(text)
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    return MeshReport(**fields)


def _remember(path: Path, report: MeshReport) -> None:
    """Writes a report to the cache, behind its hash."""
    text = json.dumps(report._asdict()).encode()
    keep(_cache_file(path), hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


def keep(cached: Path, data: bytes) -> None:
    """Writes a file of the cache atomically; ignores a cache that cannot be written, which only costs time."""
    with contextlib.suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cached.parent, delete=False) as aside:
            aside.write(data)
        Path(aside.name).replace(cached)
