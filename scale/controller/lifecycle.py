"""Runs a call from beginning to end: checks, plan, lock, resume, loop, report."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bimangrasp.builtin import KERNEL_BYTES, use_writable_kernel_cache
from bimangrasp.energy.config import INSTALL_WARP, PLAIN, chosen_path, resolve_kernels
from bimangrasp.errors import InputError
from bimangrasp.validation.config import check_installed
from scale.cluster.door import check_cluster
from scale.controller import optional_outputs
from scale.controller.completion import ObjectCompletion, OpenCall
from scale.controller.event_loop import EventLoop, Stop
from scale.controller.run_report import EXIT_ERROR, EXIT_OK, EXIT_SHORT, Progress, RunReport
from scale.controller.second_judgement import judged_again
from scale.controller.worker_events import TRACEBACK_BYTES
from scale.engine.devices import package_version, resolve_devices, unseen_gpus, usable_kernels
from scale.engine.interfaces import RoundFactoryOf, VerdictFactoryOf
from scale.engine.pool import Engine
from scale.engine.process_pool import LocalEngine
from scale.engine.scheduler import is_disk_full
from scale.engine.synthesizer import Simulator, Synthesizer, coupling_note
from scale.errors import RunError
from scale.formatting import byte_size, objects_table, spans
from scale.merge import rejected_file
from scale.merge.final_file import write_dataset
from scale.screen import stage
from scale.settings import fingerprints
from scale.settings.filters import Accept
from scale.settings.mesh_checks import check_objects
from scale.settings.parsing import parse_target, resolve_objects
from scale.settings.schema import GENERATE, PHYSICS, RAY, Config, as_config, check_seeds, check_settings
from scale.state.journal_facts import distinct
from scale.state.records import RunRequest
from scale.state.resume import ELSEWHERE, resume, used_before
from scale.state.scan import FolderScan, scan
from scale.store import parts
from scale.store.disk_space import row_bytes
from scale.store.events import CallEnded, CallStarted, ObjectsIndexed, RoundAdopted
from scale.store.journal import VERSION, Journal, events_of
from scale.store.locks import RunLock, wait_for_orphans
from scale.store.run_folder import VALIDATOR, WORKER, RunFolder, file_name, parse_shard_name


class PlannedObject(NamedTuple):
    """One object of a plan.

    Attributes:
        code, index, quota: identity, and rows wanted.
        collected: rows that it has.
        rounds: the rounds that are needed if every row is accepted.
        seeds: theirs.
    """

    code: str
    index: int
    quota: int
    collected: int
    rounds: list[int]
    seeds: list[int]


class Plan(NamedTuple):
    """What a call would do.

    Attributes:
        objects: in order.
        devices: one per worker; none where a cluster's nodes give them.
        disk_bytes: room that shards and final files take at most, if every row is accepted.
        free_bytes: room that there is.
        run_dir: the run's folder.
        notes: what an earlier call left.
    """

    objects: list[PlannedObject]
    devices: list[str]
    disk_bytes: int
    free_bytes: int
    run_dir: str
    notes: list[str]

    def __str__(self) -> str:
        rows = [
            (o.code, o.index, f"{o.collected}/{o.quota}", spans(o.rounds) or "none", spans(o.seeds) or "none")
            for o in self.objects
        ]
        head = ("object", "index", "grasps", "rounds", "seeds")
        lines = [f"{self.run_dir} (dry run: nothing is written)", *objects_table(head, rows)]
        total = sum(len(o.rounds) for o in self.objects)
        workers = f"{len(self.devices)} workers: {', '.join(self.devices)}"
        where = workers if self.devices else "the nodes of a cluster, which is not asked now"
        lines.append(f"{total} rounds at least, on {where}")
        lines.append(f"disk: at most {byte_size(self.disk_bytes)} wanted, {byte_size(self.free_bytes)} free")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def check(
    settings: Any,
    factory_of: RoundFactoryOf | None = None,
    verdict_factory_of: VerdictFactoryOf | None = None,
    remember: bool = True,
) -> RunRequest:
    """Returns the call, checked.

    Args:
        settings: a Config, or a DictConfig of the same shape.
        factory_of: gives what makes rounds; the optimizer where it is left out.
        verdict_factory_of: gives what tests rounds; MuJoCo where it is left out.
        remember: whether mesh reports may be cached on the disk.

    Raises:
        InputError: names what cannot be used and what to do.
    """
    config = as_config(settings)
    check_settings(config)
    resolve_kernels(config.kernels)
    if config.filter.name == PHYSICS:
        check_installed(config.validation)
    if config.mode == GENERATE:
        config = _for_one_round(config)
    optional_outputs.check(config)
    if config.engine == RAY:
        check_cluster(config)
    entries = resolve_objects(config.object_root, config.object_code_list)
    quotas = parse_target(config.target_count_per_object, [entry.code for entry in entries])
    check_seeds(config.seed_base, len(entries), config.max_rounds)
    listed_codes = [entry.code for entry in entries]
    folder, indices = _folder_of(config, listed_codes)
    if indices is not None:
        entries, quotas = [e for e in entries if e.code in indices], {code: quotas[code] for code in indices}
    factory = (factory_of or Synthesizer)(config.hand, config.synthesis)
    _check_folder(config, folder, factory.algorithm_version)
    is_local = config.engine != RAY
    devices = resolve_devices(config.gpus, config.workers_per_gpu) if is_local else []
    simulates_on_device = config.filter.name == PHYSICS and config.validation.simulator.is_on_device
    compiles = is_local and (simulates_on_device or chosen_path(config.kernels) != PLAIN)
    cache_note = use_writable_kernel_cache(KERNEL_BYTES if compiles else 0)
    kernels, device_note = usable_kernels(config.kernels, devices, simulates_on_device)
    config = replace(config, kernels=kernels)
    gpu_note = unseen_gpus(devices) if is_local and config.gpus == "auto" else ""
    hand = factory.hand_table()
    meshes = check_objects(entries, config.object, remember=remember)
    accept, judge_of = Accept(config.filter), verdict_factory_of or Simulator
    verdict_factory = judge_of(config) if accept.needs_verdict else None
    if not is_local:
        factory, verdict_factory = factory.portable(), verdict_factory and verdict_factory.portable()
    return RunRequest(
        config=config,
        folder=folder,
        entries=entries,
        indices=indices,
        listed_codes=listed_codes,
        quotas=quotas,
        meshes=meshes,
        devices=devices,
        factory=factory,
        hand=hand,
        run_key=fingerprints.run_key(config, hand.sha256, factory.algorithm_version),
        acceptance_key=fingerprints.acceptance_key(config),
        accept=accept,
        verdict_factory=verdict_factory,
        second_factory=judge_of(config.in_mujoco) if simulates_on_device else None,
        dedup=config.dedup.thresholds,
        notes=list(filter(None, [cache_note, device_note, gpu_note, coupling_note(config.hand)])),
    )


def _folder_of(config: Config, codes: list[str]) -> tuple[RunFolder, dict[str, int] | None]:
    """Returns the folder of a call, and of a part its objects with their indices in the list of the whole run.

    Raises:
        InputError: `part` is none, or does not fit what lies in the folder of the run.
    """
    root = Path(config.output_root) / config.exp_name
    if config.part is None:
        parts.refuse_parts(root)
        return RunFolder(root), None
    part = parts.parse_part(config.part)
    parts.check_siblings(root, part, codes)
    return RunFolder(root / part.name), {code: index for index, code in enumerate(codes) if part.has(index)}


def _for_one_round(config: Config) -> Config:
    """Returns the settings of `mode=generate`: a run that ends after one round of each object.

    Raises:
        InputError: a setting about grasps that count; here every finite one does.
    """
    chosen = {
        f"filter={config.filter.name}": (config.filter.name != "none", "take filter=none"),
        "dedup": (config.dedup.thresholds is not None, "leave it away"),
        "keep_failed=true": (config.keep_failed, "leave it away"),
    }
    for name, (is_chosen, instead) in chosen.items():
        if is_chosen:
            raise InputError(
                f"{name} needs mode=scale: mode=generate makes one round of each object and keeps every finite grasp; "
                f"{instead} and test the grasps with mode=validate exp_name={config.exp_name}"
            )
    return replace(config, max_rounds=1, target_count_per_object=config.round_batch_size)


def _check_folder(config: Config, folder: RunFolder, algorithm_version: int) -> None:
    """Refuses a run folder whose journal has other settings, or anything for `resume=false`, before meshes are read.

    `resume` looks at all files again, once the folder is locked; this spares the seconds until then.
    """
    call = json.loads(json.dumps(fingerprints.run_key(config, "", algorithm_version)))
    starts = events_of(folder, CallStarted)
    if starts and not config.resume:
        raise used_before(folder)
    for key in distinct(start.run_key for start in starts):
        known_hand = call | {"hand.sha256": key.get("hand.sha256")}
        fingerprints.check(f"the run folder {folder.root}", key, known_hand, ELSEWHERE)


def plan(settings: Any, factory_of: RoundFactoryOf | None = None) -> Plan:
    """Returns what the call would do.

    Raises:
        InputError: what the call itself would refuse, but for a folder in use.
    """
    request = check(settings, factory_of, remember=False)
    folder, config = request.folder, request.config
    if request.accept.needs_verdict:
        from scale.store import convex_pieces  # here, because it loads mesh libraries

        pieces = convex_pieces.present_pieces(folder, request.entries, config.pieces)
        request = request._replace(pieces=pieces)
    silent = lambda line: None  # noqa: ARG005, E731
    folder_scan = scan(folder, request.accept, request.acceptance_key_of, "auto", silent, request.header())
    resumed = resume(request, folder_scan)
    objects = []
    for state in resumed.objects:
        needed = list(state.rounds.needed(config.round_batch_size, config.max_rounds))
        round_ids = [] if state.has_larger_file else needed
        seeds = [request.seed(state.index, round_id) for round_id in round_ids]
        objects.append(PlannedObject(state.code, state.index, state.quota, state.collected, round_ids, seeds))
    labels = [device.label for device in request.devices]
    wanted = _bytes(request, objects)
    return Plan(objects, labels, wanted, folder.free_bytes(), str(folder.root), [*resumed.notes, *request.notes])


def _bytes(request: RunRequest, objects: list[PlannedObject]) -> int:
    """Returns the room for the rounds' shards, for the final files and for those of rejected grasps."""
    row = row_bytes(len(request.hand.joint_names), request.config.contacts_per_hand)
    rows = [request.config.round_batch_size * len(planned.rounds) for planned in objects]
    cap = request.config.rejected_cap if request.config.keep_failed else rejected_file.SAMPLE
    rejected = sum(min(count, cap) for count in rows)
    quotas = sum(planned.quota for planned in objects if planned.rounds)
    return row * (sum(rows) + rejected + quotas)


def run(
    settings: Any, factory_of: RoundFactoryOf | None = None, verdict_factory_of: VerdictFactoryOf | None = None
) -> RunReport:
    """Returns the report of a call that collects every object's quota, or makes one round of each (`mode=generate`).

    Raises:
        InputError: the call cannot be served; nothing was started.
        RunError: the run cannot go on.

    Whoever listened to SIGUSR1 or SIGUSR2 before is called when the run has ended by it, with nothing left open.
    """
    start = time.monotonic()
    checked = check(settings, factory_of, verdict_factory_of)
    with closing(_engine(checked)) as engine, _opened(checked, engine) as call, Stop(checked.config) as stop:
        completion = ObjectCompletion(call)
        loop = EventLoop(completion)
        exit_code = EXIT_ERROR
        try:
            loop.run(stop)
            completion.remove_surplus()
            _tidy(call.request)
            if call.request.config.record and not stop.exit_code:
                optional_outputs.animate(call.request, call.progress.say)
            loop.second_judgement = second = judged_again(call, stop)
            if second:
                completion.notes.append(str(second))
            is_short = any(report.is_short for report in loop.reports()) or (second is not None and second.is_short)
            exit_code = stop.exit_code or (EXIT_SHORT if is_short else EXIT_OK)
        finally:
            loop.save(exit_code)
            call.journal.append(CallEnded(exit_code=exit_code, error=_cause()))
        report = RunReport(exit_code, checked.folder.root, loop.reports(), completion.notes, time.monotonic() - start)
        untold = [note for note in report.notes if note not in call.progress.noted]
        call.progress.say(str(replace(report, notes=untold)))
    stop.pass_on()
    return report


def _cause() -> str | None:
    """Returns what the journal says of the error that ends a call; None where none does."""
    error = sys.exception()
    if error is None or isinstance(error, InputError | RunError):
        return None if error is None else str(error)
    return "".join(traceback.format_exception(error))[-TRACEBACK_BYTES:]


def _engine(request: RunRequest) -> Engine:
    """Returns what the processes of a call run on; a cluster is connected to."""
    if request.config.engine == RAY:
        from scale.cluster.ray_engine import RayEngine  # an extra, which takes seconds to load

        return RayEngine(request.config, request.second_factory is not None, request.verdict_factory is not None)
    return LocalEngine({WORKER: request.devices, VALIDATOR: request.validator_devices})


@contextmanager
def _opened(request: RunRequest, engine: Engine) -> Iterator[OpenCall]:
    """Yields the run folder under its lock: scanned, resumed, journal open, damaged files and leftovers away."""
    folder = request.folder
    lock = _locked(folder)
    try:
        wait_for_orphans(folder)
        title = f"{request.config.mode} {request.config.exp_name}"
        with closing(Progress(folder, title)) as progress:
            request = _with_pieces(request, progress)
            reading = (request.config.verify, progress.say, request.header())
            folder_scan = scan(folder, request.accept, request.acceptance_key_of, *reading)
            resumed = resume(request, folder_scan)
            for platforms in (resumed.platforms, resumed.verdict_platforms):
                if len(platforms) > 1 and not request.config.allow_mixed_platform:
                    raise InputError(
                        "the run folder has rounds of several platforms: "
                        + "; ".join(fingerprints.differences(*platforms[:2]))
                        + ": go on with allow_mixed_platform=true"
                    )
            with closing(Journal(folder, folder_scan.journal.replayed)) as journal:
                call = OpenCall(request, resumed, journal, progress, lock, engine)
                _enter(call, folder_scan)
                for path in folder_scan.damaged:
                    folder.set_aside(path)
                yield call
    finally:
        lock.release()


def _with_pieces(request: RunRequest, progress: Progress) -> RunRequest:
    """Returns the request with those convex pieces that are there or have to be, where a simulator is asked.

    Those of objects that have files are needed to read these. The others' are found by validators, as the run goes on;
    without CoACD here, for then nothing takes long, and what cannot be served is refused before anything is made.
    """
    if not request.accept.needs_verdict:
        return request
    from bimangrasp.objects.decomposition import can_decompose  # here, because it loads mesh libraries
    from scale.store import convex_pieces

    folder, config = request.folder, request.config.pieces
    present = convex_pieces.present_pieces(folder, request.entries, config)
    sealed = (parse_shard_name(path.name).code_name for path in (*folder.shard_files(), *folder.verdict_files()))
    used = {path.stem for path in folder.final_files()} | set(sealed)
    missing = [entry for entry in request.entries if entry.code not in present]
    needed = [entry for entry in missing if file_name(entry.code) in used or not can_decompose()]
    pieces = present | convex_pieces.sealed_pieces(folder, needed, config, progress.say)
    request = request._replace(pieces=pieces)
    if len(pieces) == len(request.entries) and request.pieces_note():
        progress.say(request.pieces_note())
    return request


def _locked(folder: RunFolder) -> RunLock:
    """Returns the lock of a run folder, made where it is missing; refuses one that cannot be written."""
    try:
        folder.root.parent.mkdir(parents=True, exist_ok=True)
        folder.prepare()
        folder.check_writable()
        with stage(f"looking whether a run on another machine still holds {folder.root}"):
            return RunLock(folder)
    except OSError as error:
        if is_disk_full(error):
            advice = "make room, or choose an output_root on another disk"
        else:
            advice = "make it writable for this user, or choose another output_root or exp_name"
        raise InputError(f"the run folder {folder.root} cannot be written ({error}): {advice}") from error


def _enter(call: OpenCall, folder_scan: FolderScan) -> None:
    """Writes down what this call is, before anything is handed out."""
    request, resumed, journal, progress, _, engine = call
    folder, config = request.folder, request.config
    if not request.entries:
        resumed.notes.append(f"part={config.part} has none of the {len(request.listed_codes)} objects: nothing to do")
    resumed.notes.extend(f"an unfinished write was removed: {name}" for name in folder.remove_leftovers())
    if config.part is not None:
        parts.write_codes(folder, request.listed_codes)
    journal.append(
        CallStarted(
            format_version=VERSION,
            version=package_version("bimangrasp"),
            mode=config.mode,
            run_key=request.run_key,
            acceptance_key=request.acceptance_key,
            host=socket.gethostname(),
            pid=os.getpid(),
            devices=engine.places,
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
    devices = ", ".join(engine.places)
    kernels = resolve_kernels(config.kernels)
    progress.say(f"{folder.root}: {len(request.entries)} objects, workers on {devices}, kernels {kernels}")
    if config.kernels == "auto" and chosen_path("auto") == PLAIN:
        progress.say(f"kernels are plain PyTorch; ten times as fast: {INSTALL_WARP}")
    for note in (*resumed.notes, *request.notes):
        progress.note(note)


def _tidy(request: RunRequest) -> None:
    """Leaves a folder without empty rooms, and the file that opens all final files."""
    request.folder.remove_leftovers()
    request.folder.remove_empty_places()
    if request.folder.final_files():
        write_dataset(request.folder)
