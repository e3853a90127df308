"""Runs the jobs of a sweep (-m) as jobs of a cluster, by submitit: hydra/launcher=submitit_slurm."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

import conf
from bimangrasp.builtin import install_command
from bimangrasp.errors import InputError
from scale.command import outcome
from scale.formatting import last_line
from scale.settings.parsing import nearest
from scale.settings.schema import Config

GROUP, SETTINGS = "hydra/launcher", "hydra.launcher."
EXECUTORS = ("slurm", "local")
OF_ANY_EXECUTOR = ("timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "nodes", "tasks_per_node", "name")
"""Settings that submitit knows without the name of an executor before them; null leaves each away."""
LOOK_EVERY_S = 2.0
SAY_EVERY_S = 60.0
ERROR = 1


class Launcher(NamedTuple):
    """How jobs are started.

    Attributes:
        name: of the choice.
        executor: submitit's name of it.
        settings: of that executor, by submitit's names.
    """

    name: str
    executor: str
    settings: dict[str, Any]


def split(overrides: Sequence[str], config_dir: str | Path | None = None) -> tuple[Launcher | None, list[str]]:
    """Returns the launcher that a command line chooses, None where it chooses none, and the other overrides.

    Raises:
        InputError: an unknown launcher or setting of one.
    """
    own = [line for line in overrides if line.lstrip("+").startswith((f"{GROUP}=", SETTINGS))]
    rest = [line for line in overrides if line not in own]
    chosen = [line.partition("=")[2] for line in own if line.lstrip("+").startswith(f"{GROUP}=")]
    if not own:
        return None, rest
    if not chosen:
        raise InputError(f"{own[0]!r} is for a launcher: wanted {GROUP}=submitit_slurm, or one of your own, beside it")
    files = _files(config_dir)
    if chosen[-1] not in files:
        meant = nearest(chosen[-1], files)
        hint = f"did you mean {meant[0]!r}? " if meant else ""
        raise InputError(f"{GROUP}={chosen[-1]}: {hint}There are {', '.join(sorted(files))}")
    settings = OmegaConf.to_container(OmegaConf.load(files[chosen[-1]]))
    if not isinstance(settings, dict) or settings.get("executor") not in EXECUTORS:
        raise InputError(f"{files[chosen[-1]]}: wanted executor: slurm or local, and what else that executor takes")
    for line in own:
        if line.lstrip("+").startswith(SETTINGS):
            _set(settings, line)
    return Launcher(chosen[-1], settings.pop("executor"), settings), rest


def _files(config_dir: str | Path | None) -> dict[str, Path]:
    """Returns the launchers by name: those of the package, and of a folder of the user's."""
    folders = [conf.FOLDER, *([Path(config_dir)] if config_dir else [])]
    return {path.stem: path for folder in folders for path in sorted((folder / GROUP).glob("*.yaml"))}


def _set(settings: dict[str, Any], line: str) -> None:
    """Sets what one override says; a key that the file lacks comes with a plus."""
    try:
        override = OverridesParser.create().parse_overrides([line])[0]
    except HydraException as error:
        raise InputError(f"cannot read the argument {line!r}: wanted {SETTINGS}key=value") from error
    key, *inner = override.key_or_group.removeprefix(SETTINGS).split(".")
    if override.is_sweep_override() or override.is_delete():
        raise InputError(f"{line!r}: wanted one value")
    if key not in settings and not override.is_add():
        known = ", ".join(settings)
        raise InputError(f"{line!r}: the launcher has {known}; +{SETTINGS}{key}=... adds another setting of submitit's")
    where = settings
    for name in (key, *inner)[:-1]:
        where = where.setdefault(name, {})
        if not isinstance(where, dict):
            raise InputError(f"{line!r}: {name} has no keys below it")
    where[(key, *inner)[-1]] = override.value()


class Job:
    """What submitit calls in a job's process, and again with the same settings when the job was queued again."""

    def __call__(self, config: Config) -> int:
        """Returns the exit code of one job."""
        return outcome(config)

    def checkpoint(self, config: Config) -> Any:
        """Returns the job as it is to be queued again: it goes on by what lies in its run folder."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, config)


def run(launcher: Launcher, configs: Sequence[Config], say: Callable[[str], None]) -> list[int]:
    """Returns the exit codes of jobs, once all have ended; tells `say` which there are, where they log, how they end.

    Job files lie below `output_root`, in `submitit`, for all machines have to see them.

    Raises:
        InputError: submitit is not installed, or refuses a setting.
    """
    submitit = _submitit(launcher)
    folder = Path(configs[0].output_root).absolute() / "submitit" / configs[0].exp_name.partition("/")[0]
    try:
        executor = _executor(submitit, launcher, folder)
        with executor.batch():
            jobs = [executor.submit(Job(), config) for config in configs]
    except (submitit.core.utils.FailedJobError, OSError) as error:
        reason = last_line(str(error)) or type(error).__name__
        what = f"{GROUP}={launcher.name} could not send the jobs, whose files go to {folder}"
        raise InputError(f"{what}: {reason}") from error
    for config, job in zip(configs, jobs, strict=True):
        say(f"job {job.job_id}: {named(config)}, log {job.paths.stdout}")
    try:
        return _waited(jobs, configs, say)
    except KeyboardInterrupt:
        ids = " ".join(str(job.job_id) for job in jobs)
        how = f"scancel {ids}" if launcher.executor == "slurm" else f"kill {ids}"
        say(f"no longer waiting; the jobs go on, `{how}` ends them")
        raise


def named(config: Config) -> str:
    """Returns a job in words."""
    return f"{config.exp_name}, part {config.part}" if config.part else config.exp_name


def _submitit(launcher: Launcher) -> Any:
    """Returns the package."""
    try:
        import submitit
    except ImportError as error:
        raise InputError(f"{GROUP}={launcher.name} needs submitit: {install_command('slurm')}") from error
    return submitit


def _executor(submitit: Any, launcher: Launcher, folder: Path) -> Any:
    """Returns submitit's executor with the launcher's settings."""
    given = {name: value for name, value in launcher.settings.items() if value is not None}
    timeouts = given.pop("max_num_timeout", None)
    start = {} if timeouts is None else {f"{launcher.executor}_max_num_timeout": timeouts}
    settings = {name if name in OF_ANY_EXECUTOR else f"{launcher.executor}_{name}": given[name] for name in given}
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=launcher.executor, **start)
        executor.update_parameters(**settings)
    except (RuntimeError, TypeError, ValueError, NameError, AssertionError) as error:
        raise InputError(f"{GROUP}={launcher.name}: {str(error).strip().splitlines()[0]}") from error
    return executor


def _waited(jobs: Sequence[Any], configs: Sequence[Config], say: Callable[[str], None]) -> list[int]:
    """Returns the exit codes; says of each job that it has ended, and now and then how many have not."""
    codes: dict[int, int] = {}
    spoken = time.monotonic()
    while len(codes) < len(jobs):
        for number, job in enumerate(jobs):
            if number not in codes and job.done():
                codes[number], why = _code(job)
                say(f"job {job.job_id}: {named(configs[number])}: ended with {codes[number]}{why}")
                spoken = time.monotonic()
        if time.monotonic() - spoken > SAY_EVERY_S:
            spoken = time.monotonic()
            states = Counter(str(job.state).lower() for number, job in enumerate(jobs) if number not in codes)
            counts = ", ".join(f"{count} {state}" for state, count in states.items())
            say(f"{len(codes)} of {len(jobs)} jobs have ended; {counts}")
        time.sleep(LOOK_EVERY_S if len(codes) < len(jobs) else 0)
    return [codes[number] for number in range(len(jobs))]


def _code(job: Any) -> tuple[int, str]:
    """Returns the exit code of a job that has ended, and why it has none of its own, as one that died."""
    error = job.exception()
    if error is None:
        return int(job.result()), ""
    reason = last_line(str(error)) or type(error).__name__
    return ERROR, f", for it died: {reason}, see {job.paths.stderr}"
