"""A call from beginning to end: door, lock, resume, loop, report."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import yaml

from bimangrasp.energy.backends import INSTALL, PLAIN, chosen_path, resolve_kernels
from bimangrasp.errors import InputError
from scale.controller import preflight, recording, run_report
from scale.controller.completion import ObjectCompletion
from scale.controller.event_loop import EventLoop, refuse_mixed
from scale.controller.progress import Progress
from scale.controller.run_report import RunReport
from scale.controller.single_round import SingleRoundCompletion
from scale.controller.worker_events import TRACEBACK_BYTES
from scale.engine.interfaces import RoundFactoryOf, VerdictFactoryOf
from scale.engine.signals import Stop
from scale.errors import RunError
from scale.merge.dataset_index import write_dataset
from scale.state.request import RunRequest
from scale.state.resume import Resumed, resume
from scale.state.scan import Survey, survey
from scale.store import convex_pieces, journal
from scale.store.durable_io import DISK_FULL
from scale.store.journal import Journal
from scale.store.locks import RunLock, wait_for_orphans
from scale.store.run_folder import RunFolder


def run(settings: Any, maker: RoundFactoryOf | None = None, judge: VerdictFactoryOf | None = None) -> RunReport:
    """Returns the report of a call that collects every object's quota.

    Raises:
        InputError: the call cannot be served; nothing was started.
        RunError: the run cannot go on.
    """
    start = time.monotonic()
    checked = preflight.check(settings, maker, judge)
    with _opened(checked) as (order, resumed, book, progress, lock), Stop(order.config) as stop:
        settler = ObjectCompletion(order, resumed, book, progress)
        runner = EventLoop(order, settler, resumed, book, progress, lock)
        exit_code = run_report.EXIT_ERROR
        try:
            runner.loop(stop)
            settler.remove_surplus()
            _tidy(order)
            exit_code = stop.exit_code or _exit_code(runner)
        finally:
            runner.save(exit_code)
            book.append("end", exit_code=exit_code, **_cause())
        return _told(order, runner, settler, progress, exit_code, start)


def generate(settings: Any, maker: RoundFactoryOf | None = None) -> RunReport:
    """Returns the report of a call that makes one round of each object, without quotas.

    Raises:
        InputError: see `run`.
        RunError: see `run`.
    """
    start = time.monotonic()
    checked = preflight.check(settings, maker)
    with _opened(checked) as (order, resumed, book, progress, lock), Stop(order.config) as stop:
        settler = SingleRoundCompletion(order, resumed, book, progress)
        runner = EventLoop(order, settler, resumed, book, progress, lock)
        exit_code = run_report.EXIT_ERROR
        try:
            runner.loop(stop)
            _tidy(order)
            if order.config.record and not stop.exit_code:
                recording.animate(order.folder, order.config.hand, order.entries, progress.say)
            exit_code = stop.exit_code or _exit_code(runner)
        finally:
            book.append("end", exit_code=exit_code, **_cause())
        return _told(order, runner, settler, progress, exit_code, start)


def _told(
    order: RunRequest, runner: EventLoop, settler: ObjectCompletion, progress: Progress, exit_code: int, start: float
) -> RunReport:
    """Returns the report and shows it."""
    told = RunReport(exit_code, order.folder.root, runner.reports(), settler.notes, time.monotonic() - start)
    progress.say(str(told))
    return told


def _cause() -> dict[str, str]:
    """Returns what the journal says of the error that ends a call; nothing where none does."""
    error = sys.exception()
    if error is None:
        return {}
    is_told = isinstance(error, InputError | RunError)
    return {"error": str(error) if is_told else "".join(traceback.format_exception(error))[-TRACEBACK_BYTES:]}


def _exit_code(runner: EventLoop) -> int:
    return run_report.EXIT_SHORT if any(one.is_short for one in runner.reports()) else run_report.EXIT_OK


@contextmanager
def _opened(order: RunRequest) -> Iterator[tuple[RunRequest, Resumed, Journal, Progress, RunLock]]:
    """Yields the run folder under its lock: surveyed, resumed, journal open, leftovers removed."""
    folder = order.folder
    lock = _locked(folder)
    try:
        wait_for_orphans(folder)
        with _telling(order) as progress:
            order = _with_pieces(order, progress)
            found = survey(folder, order.accept, order.acceptance_key_of, order.config.verify, progress.say)
            resumed = resume(order, found)
            for platforms in (resumed.platforms, resumed.verdict_platforms):
                refuse_mixed(platforms, order.config.allow_mixed_platform)
            book = Journal(folder)
            try:
                _enter(order, found, resumed, book, progress)
                for path in found.damaged:
                    folder.set_aside(path)
                yield order, resumed, book, progress, lock
            finally:
                book.close()
    finally:
        lock.release()


def _with_pieces(order: RunRequest, progress: Progress) -> RunRequest:
    """Returns the order with the objects' convex pieces, sealed in the run folder, where rows count by a simulation."""
    if not order.accept.needs_verdict:
        return order
    pieces = convex_pieces.sealed_pieces(order.folder, order.entries, order.config.pieces, progress.say)
    return order._replace(pieces=pieces)


def _locked(folder: RunFolder) -> RunLock:
    """Returns the lock of a run folder, made where it is missing; refuses one that cannot be written."""
    try:
        folder.root.parent.mkdir(parents=True, exist_ok=True)
        folder.prepare()
        folder.check_writable()
        return RunLock(folder)
    except OSError as error:
        if error.errno in DISK_FULL:
            advice = "make room, or choose an output_root on another disk"
        else:
            advice = "make it writable for this user, or choose another output_root or exp_name"
        raise InputError(f"the run folder {folder.root} cannot be written ({error}): {advice}") from error


@contextmanager
def _telling(order: RunRequest) -> Iterator[Progress]:
    progress = Progress(order.folder, f"{order.config.mode} {order.config.exp_name}")
    try:
        yield progress
    finally:
        progress.close()


def _enter(order: RunRequest, found: Survey, resumed: Resumed, book: Journal, progress: Progress) -> None:
    """Writes down what this call is, before anything is handed out."""
    folder, config = order.folder, order.config
    resumed.notes.extend(f"an unfinished write was removed: {name}" for name in folder.remove_leftovers())
    book.append(
        "start",
        format_version=journal.VERSION,
        version=_version(),
        mode=config.mode,
        run_key=order.run_key,
        acceptance_key=order.acceptance_key,
        host=socket.gethostname(),
        pid=os.getpid(),
        devices=[device.label for device in order.devices],
        quotas=order.quotas,
        notes=resumed.notes,
    )
    if resumed.indices:
        book.append("objects", indices=resumed.indices)
    for state, round_id in resumed.adopted:
        book.append("adopted", **state.finished[round_id].facts(state.code, round_id, folder))
    for final in found.untold:
        book.append("merged", **final.facts())
    folder.write(folder.config, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True).encode())
    devices = ", ".join(device.label for device in order.devices)
    kernels = resolve_kernels(config.kernels)
    progress.say(f"{folder.root}: {len(order.entries)} objects, workers on {devices}, kernels {kernels}")
    if config.kernels == "auto" and chosen_path("auto") == PLAIN:
        progress.say(f"kernels are plain PyTorch; ten times as fast: {INSTALL}")
    for note in resumed.notes:
        progress.say(note)


def _tidy(order: RunRequest) -> None:
    """Leaves a folder without empty rooms, and the file that opens all final files."""
    order.folder.remove_leftovers()
    order.folder.remove_empty_places()
    if order.folder.final_files():
        write_dataset(order.folder)


def _version() -> str:
    try:
        return version("bimangrasp")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
