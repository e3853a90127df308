"""Runs the command line: checks the settings, does what `mode` says, and ends with the worst outcome.

Exit codes: 0 every quota reached; 3 some object fell short; 1 an error; 2 a usage error or input that cannot
be used; 129, 130 and 143 after SIGHUP, SIGINT and SIGTERM. SIGHUP ends no run.
"""

from __future__ import annotations

import argparse
import signal
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # before what takes a second to load: a terminal may be closed now, which must end no run
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.version import setbase
from omegaconf import DictConfig

import conf
from bimangrasp.errors import InputError
from conf import launcher, sweep
from scale.command import outcome, refused
from scale.formatting import SEVERITY
from scale.screen import lenient
from scale.settings.schema import Config


def main() -> int:
    """Returns the exit code of the command line in `sys.argv`."""
    with lenient():
        return _main()


def _main() -> int:
    """Does what the command line asks for; its output may be dropped."""
    parser = get_args_parser()
    arguments = parser.parse_intermixed_args()
    try:
        _refuse_flags(arguments)
        if _only_shows(arguments):
            return _show(arguments, parser)
        chosen, overrides = launcher.split(arguments.overrides, arguments.config_dir)
        if chosen and not arguments.multirun:
            raise InputError(f"{launcher.GROUP}={chosen.name} is for the jobs of a sweep: add -m")
        if arguments.multirun:
            return _run_sweep(sweep.jobs(overrides, arguments.config_dir), chosen)
        config = conf.load(overrides, arguments.config_dir)
    except InputError as error:
        return refused(error)
    except KeyboardInterrupt:
        return 130
    return outcome(config)


def _refuse_flags(arguments: argparse.Namespace) -> None:
    """Refuses the flags of Hydra that choose other YAML files than those of the package."""
    for name in ("config_path", "config_name", "experimental_rerun"):
        if getattr(arguments, name):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is not for this program; --config-dir adds a folder of your own YAML files")


def _only_shows(arguments: argparse.Namespace) -> bool:
    """Whether something about the settings is printed and nothing is run."""
    shows = ("help", "hydra_help", "cfg", "info", "shell_completion")
    return any(getattr(arguments, name) for name in shows)


def _show(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Lets Hydra print what it is asked for, with checked overrides; returns the exit code."""
    folder = Path(arguments.config_dir) if arguments.config_dir else None
    arguments.overrides = [override.input_line for override in conf.parse(arguments.overrides, folder)]
    setbase("1.3")
    try:
        _run_hydra(arguments, parser, _run_nothing, str(conf.FOLDER), "config")
    except SystemExit as end:  # how Hydra ends after --help, and after an error of its own
        return 1 if end.code else 0
    return 0


def _run_nothing(cfg: DictConfig) -> None:
    """Stands where Hydra wants a job; with the flags of `_only_shows` it calls none."""


def _run_sweep(jobs: list[Config], chosen: launcher.Launcher | None) -> int:
    """Runs the jobs of a sweep, each in a folder of its own; returns the worst exit code.

    Every job is composed and checked before the first one starts. They run one after the other, or where a launcher
    puts them. A signal ends the sweep, an error does not.
    """
    if chosen and not any(config.dry_run for config in jobs):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the jobs go on without this process
        return max(launcher.run(chosen, jobs, partial(print, flush=True)), key=SEVERITY.index)
    outcomes: list[int] = []
    for number, config in enumerate(jobs):
        print(f"job {number}: {launcher.named(config)}", flush=True)
        outcomes.append(outcome(config))
        if outcomes[-1] > 128:
            break
    return max(outcomes, key=SEVERITY.index)


if __name__ == "__main__":
    sys.exit(main())
