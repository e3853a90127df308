"""Runs a call from beginning to end: checks, lock, resume, loop, report."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Any

import yaml

from bimangrasp.builtin import install_command
from bimangrasp.energy.backends import PLAIN, chosen_path, resolve_kernels
from bimangrasp.errors import InputError
from scale.controller import optional_outputs, preflight, run_report
from scale.controller.completion import ObjectCompletion, OpenCall
from scale.controller.event_loop import EventLoop, Stop, refuse_mixed
from scale.controller.progress import Progress
from scale.controller.run_report import RunReport
from scale.controller.worker_events import TRACEBACK_BYTES
from scale.engine.devices import package_version
from scale.engine.interfaces import RoundFactoryOf, VerdictFactoryOf
from scale.engine.scheduler import is_disk_full
from scale.errors import RunError
from scale.merge.dataset_index import write_dataset
from scale.state.request import RunRequest
from scale.state.resume import resume
from scale.state.scan import FolderScan, scan
from scale.store.events import CallEnded, CallStarted, ObjectsIndexed, RoundAdopted
from scale.store.journal import VERSION, Journal
from scale.store.locks import RunLock, wait_for_orphans
from scale.store.run_folder import RunFolder


def run(
    settings: Any, factory_of: RoundFactoryOf | None = None, verdict_factory_of: VerdictFactoryOf | None = None
) -> RunReport:
    """Returns the report of a call that collects every object's quota, or makes one round of each (`mode=generate`).

    Raises:
        InputError: the call cannot be served; nothing was started.
        RunError: the run cannot go on.
    """
    start = time.monotonic()
    checked = preflight.check(settings, factory_of, verdict_factory_of)
    with _opened(checked) as call, Stop(checked.config) as stop:
        completion = ObjectCompletion(call)
        loop = EventLoop(call, completion)
        exit_code = run_report.EXIT_ERROR
        try:
            loop.run(stop)
            completion.remove_surplus()
            _tidy(call.request)
            if call.request.config.record and not stop.exit_code:
                optional_outputs.animate(call.request, call.progress.say)
            is_short = any(report.is_short for report in loop.reports())
            exit_code = stop.exit_code or (run_report.EXIT_SHORT if is_short else run_report.EXIT_OK)
        finally:
            loop.save(exit_code)
            call.journal.append(CallEnded(exit_code=exit_code, error=_cause()))
        seconds = time.monotonic() - start
        report = RunReport(exit_code, checked.folder.root, loop.reports(), completion.notes, seconds)
        call.progress.say(str(report))
        return report


def _cause() -> str | None:
    """Returns what the journal says of the error that ends a call; None where none does."""
    error = sys.exception()
    if error is None or isinstance(error, InputError | RunError):
        return None if error is None else str(error)
    return "".join(traceback.format_exception(error))[-TRACEBACK_BYTES:]


@contextmanager
def _opened(request: RunRequest) -> Iterator[OpenCall]:
    """Yields the run folder under its lock: scanned, resumed, journal open, damaged files and leftovers away."""
    folder = request.folder
    lock = _locked(folder)
    try:
        wait_for_orphans(folder)
        title = f"{request.config.mode} {request.config.exp_name}"
        with closing(Progress(folder, title)) as progress:
            request = _with_pieces(request, progress)
            folder_scan = scan(folder, request.accept, request.acceptance_key_of, request.config.verify, progress.say)
            resumed = resume(request, folder_scan)
            for platforms in (resumed.platforms, resumed.verdict_platforms):
                refuse_mixed(platforms, request.config.allow_mixed_platform)
            with closing(Journal(folder)) as journal:
                call = OpenCall(request, resumed, journal, progress, lock)
                _enter(call, folder_scan)
                for path in folder_scan.damaged:
                    folder.set_aside(path)
                yield call
    finally:
        lock.release()


def _with_pieces(request: RunRequest, progress: Progress) -> RunRequest:
    """Returns the request with the objects' convex pieces, sealed in the run folder, where a simulator is asked."""
    if not request.accept.needs_verdict:
        return request
    from scale.store import convex_pieces  # here, because it loads mesh libraries

    pieces = convex_pieces.sealed_pieces(request.folder, request.entries, request.config.pieces, progress.say)
    return request._replace(pieces=pieces)


def _locked(folder: RunFolder) -> RunLock:
    """Returns the lock of a run folder, made where it is missing; refuses one that cannot be written."""
    try:
        folder.root.parent.mkdir(parents=True, exist_ok=True)
        folder.prepare()
        folder.check_writable()
        return RunLock(folder)
    except OSError as error:
        if is_disk_full(error):
            advice = "make room, or choose an output_root on another disk"
        else:
            advice = "make it writable for this user, or choose another output_root or exp_name"
        raise InputError(f"the run folder {folder.root} cannot be written ({error}): {advice}") from error


def _enter(call: OpenCall, folder_scan: FolderScan) -> None:
    """Writes down what this call is, before anything is handed out."""
    request, resumed, journal, progress, _ = call
    folder, config = request.folder, request.config
    resumed.notes.extend(f"an unfinished write was removed: {name}" for name in folder.remove_leftovers())
    journal.append(
        CallStarted(
            format_version=VERSION,
            version=package_version("bimangrasp"),
            mode=config.mode,
            run_key=request.run_key,
            acceptance_key=request.acceptance_key,
            host=socket.gethostname(),
            pid=os.getpid(),
            devices=[device.label for device in request.devices],
            quotas=request.quotas,
            notes=resumed.notes,
        )
    )
    if resumed.indices:
        journal.append(ObjectsIndexed(indices=resumed.indices))
    for state, round_id in resumed.adopted:
        journal.append(state.rounds.record(round_id).event(RoundAdopted, state.code, round_id, folder))
    for final in folder_scan.unjournaled:
        journal.append(final.event())
    folder.write(folder.config, yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True).encode())
    devices = ", ".join(device.label for device in request.devices)
    kernels = resolve_kernels(config.kernels)
    progress.say(f"{folder.root}: {len(request.entries)} objects, workers on {devices}, kernels {kernels}")
    if config.kernels == "auto" and chosen_path("auto") == PLAIN:
        progress.say(f"kernels are plain PyTorch; ten times as fast: {install_command('fast')}")
    for note in resumed.notes:
        progress.say(note)


def _tidy(request: RunRequest) -> None:
    """Leaves a folder without empty rooms, and the file that opens all final files."""
    request.folder.remove_leftovers()
    request.folder.remove_empty_places()
    if request.folder.final_files():
        write_dataset(request.folder)
