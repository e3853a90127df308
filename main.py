"""Runs the command line: checks the settings, does what `mode` says, and ends with the worst outcome.

Exit codes: 0 every quota reached; 3 some object fell short; 1 an error; 2 a usage error or input that cannot
be used; 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from pathlib import Path

from hydra._internal.utils import _run_hydra, get_args_parser
from hydra.version import setbase
from omegaconf import DictConfig

import conf
import scale
from bimangrasp.errors import InputError
from conf import sweep
from scale.formatting import SEVERITY
from scale.screen import lenient
from scale.settings.schema import Config
from scale.store.path_settings import given_path

SHOWN = {
    "status": lambda config: scale.status(given_path(config)),
    "merge": scale.merge_parts,
    "validate": scale.validate,
    "export": scale.export,
    "import": scale.import_results,
    "report": scale.write_report,
    "hand": scale.check_hand,
    "objects": scale.prepare_objects,
    "view": scale.view,
}
"""What the modes do that make no grasps: their report is printed, and what cannot be served raises."""


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
        if arguments.multirun:
            return _run_sweep(sweep.jobs(arguments.overrides, arguments.config_dir))
        config = conf.load(arguments.overrides, arguments.config_dir)
    except InputError as error:
        return _refused(error)
    return _outcome(config)


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


def _run_sweep(jobs: list[Config]) -> int:
    """Runs the jobs of a sweep one after the other, each in a folder of its own; returns the worst exit code.

    Every job is composed and checked before the first one starts. A signal ends the sweep, an error does not.
    """
    outcomes: list[int] = []
    for number, config in enumerate(jobs):
        part = f", part {config.part}" if config.part else ""
        print(f"job {number}: {config.exp_name}{part}", flush=True)
        outcomes.append(_outcome(config))
        if outcomes[-1] > 128:
            break
    return max(outcomes, key=SEVERITY.index)


def _outcome(config: Config) -> int:
    """Returns the exit code of one job. Nothing is raised: the other jobs of a sweep still run."""
    from scale.errors import RunError  # here, because every worker process imports this file anew

    try:
        return _dispatch(config)
    except InputError as error:
        return _refused(error)
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception:  # the door of the program: shown in full, and the sweep goes on
        traceback.print_exc()
        return 1


def _dispatch(config: Config) -> int:
    """Does what `mode` says and returns the exit code."""
    if config.mode in SHOWN:
        report = SHOWN[config.mode](config)
        print(report)
        return getattr(report, "exit_code", 0) or 0  # mode=status has that of the last call, None where none ended
    if config.dry_run:
        print(scale.plan(config))
        return 0
    return scale.run(config).exit_code


def _refused(error: InputError) -> int:
    """Says what cannot be used and returns the exit code of a usage error."""
    print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
