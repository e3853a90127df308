"""The command line: composes and checks the settings, does what `mode` says, ends with the worst outcome.

Exit codes: 0 every quota reached; 3 some object fell short; 1 an error; 2 a usage error or input that cannot
be used; 130 and 143 after SIGINT and SIGTERM.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import traceback
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import conf
import scale
from bimangrasp.errors import InputError
from conf import overrides, sweep
from scale.settings.schema import Config
from scale.store.grasp_source import given_path

SEVERITY = (0, 3, 1, 2, 130, 143)
"""Exit codes from best to worst."""
SHOWN = {
    "status": lambda config: scale.status(given_path(config)),
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
    arguments = get_args_parser().parse_intermixed_args()
    try:
        lines = _checked(arguments)
    except InputError as error:
        return _refused(error)
    outcomes: list[int] = []
    argv = sys.argv
    sys.argv = [argv[0], *_flags(arguments), *lines]
    try:
        with tempfile.TemporaryDirectory(prefix="bimangrasp_") as scratch:
            OmegaConf.register_new_resolver("scratch", lambda: scratch, replace=True)
            _start_hydra(outcomes, arguments.config_dir)
    finally:
        sys.argv = argv
    return max(outcomes, key=SEVERITY.index, default=0)


def _checked(arguments: argparse.Namespace) -> list[str]:
    """Returns the overrides as Hydra is to read them, after every job has been composed once."""
    for name in ("config_path", "config_name", "experimental_rerun"):
        if getattr(arguments, name):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is not for this program; --config-dir adds a folder of your own YAML files")
    given, folder = arguments.overrides, arguments.config_dir
    if arguments.multirun:
        sweep.jobs(given, folder)
    elif not _only_shows(arguments):
        conf.load(given, folder)
    return overrides.lines(overrides.parse(given, Path(folder) if folder else None))


def _only_shows(arguments: argparse.Namespace) -> bool:
    """Whether Hydra prints something and runs nothing."""
    shows = ("help", "hydra_help", "cfg", "info", "shell_completion")
    return any(getattr(arguments, name) for name in shows)


def _flags(arguments: argparse.Namespace) -> list[str]:
    """Returns the flags of the command line, ahead of the overrides."""
    named = {name: value for name, value in vars(arguments).items() if value and name != "overrides"}
    return [f"--{name.replace('_', '-')}" + (f"={value}" if value is not True else "") for name, value in named.items()]


def _start_hydra(outcomes: list[int], config_dir: str | None) -> None:
    """Lets Hydra call the job, once or for each job of a sweep; exit codes go into `outcomes`."""

    @hydra.main(version_base="1.3", config_path=str(overrides.FOLDER), config_name="config")
    def job(cfg: DictConfig) -> None:
        if not any(code > 128 for code in outcomes):
            outcomes.append(_outcome(cfg, config_dir))

    try:
        job()
    except SystemExit as end:  # how Hydra ends after --help, and after an error of its own
        outcomes.append(1 if end.code else 0)


def _outcome(cfg: DictConfig, config_dir: str | None) -> int:
    """Returns the exit code of one job. Nothing is raised: Hydra would end a whole sweep."""
    from scale.errors import RunError  # here, because every worker process imports this file anew

    try:
        return _dispatch(_in_own_folder(conf.check(cfg), config_dir))
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


def _in_own_folder(config: Config, config_dir: str | None) -> Config:
    """Returns the settings of a sweep's job with a folder of its own; those of a single run as they are."""
    here = HydraConfig.get()
    if here.mode != RunMode.MULTIRUN:
        return config
    name = f"{config.exp_name}/{sweep.job_folder(here.overrides.task, config, config_dir)}"
    print(f"job {here.job.num}: {name}", flush=True)
    return dataclasses.replace(config, exp_name=name)


def _dispatch(config: Config) -> int:
    """Does what `mode` says and returns the exit code."""
    if config.mode in SHOWN:
        report = SHOWN[config.mode](config)
        print(report)
        return getattr(report, "exit_code", 0)
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
