"""Data sets of bimanual grasps: exact quotas per object, on every GPU, reproducible to the byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bimangrasp.errors import InputError
from scale.engine.main_script import refuse_bad_script
from scale.settings.schema import as_config, check_settings

if TYPE_CHECKING:
    from scale.controller.lifecycle import Plan
    from scale.controller.merge_parts import PartsReport
    from scale.controller.run_report import RunReport
    from scale.engine.interfaces import RoundFactoryOf, VerdictFactoryOf
    from scale.modes.check_hand import HandReport
    from scale.modes.export import ExportReport
    from scale.modes.import_results import ImportReport
    from scale.modes.prepare_objects import PreparationReport
    from scale.modes.validate import ValidationReport
    from scale.report.page import ReportPage
    from scale.report.status import Status
    from scale.viewer.page import ViewReport

__all__ = [
    "check_hand",
    "export",
    "generate",
    "import_results",
    "merge_parts",
    "plan",
    "prepare_objects",
    "run",
    "status",
    "validate",
    "view",
    "write_report",
]

# Modules are imported where they are called: a worker imports this package and needs few of them, and what a mode
# refuses is refused before those are loaded that compute (torch, MuJoCo and trimesh take seconds).


def run(cfg: Any, maker: RoundFactoryOf | None = None, judge: VerdictFactoryOf | None = None) -> RunReport:
    """Returns the report of a run that collects every object's quota.

    Args:
        cfg: a Config (`conf.load`), or a DictConfig of the same shape.
        maker: gives the maker of rounds; the optimizer's where it is left out.
        judge: gives what validators test rounds with; MuJoCo's where it is left out.

    Raises:
        InputError: the call cannot be served; it says why and what to do.
        RunError: the run cannot go on.
    """
    refuse_bad_script()
    from scale.controller.lifecycle import run as body

    return body(cfg, maker, judge)


def generate(cfg: Any, maker: RoundFactoryOf | None = None) -> RunReport:
    """Returns the report of a run that ends after one round of each object, as `mode=generate`.

    Arguments and errors are those of `run`.
    """
    return run(replace(as_config(cfg), mode="generate"), maker)


def plan(cfg: Any, maker: RoundFactoryOf | None = None) -> Plan:
    """Returns what `run` would do; writes nothing at all. `str()` of it is for people."""
    from scale.controller.lifecycle import plan as body

    return body(cfg, maker)


def merge_parts(cfg: Any) -> PartsReport:
    """Returns what a run's folder has once its parts (`part=i/n`) are joined there; its page is written anew, too.

    Args:
        cfg: a Config, or a DictConfig of the same shape; `path` names the run's folder, `exp_name` where that is empty.

    Raises:
        InputError: no parts, or parts that are not of one run.
    """
    config = _checked(cfg)
    from scale.controller.merge_parts import merge_parts as body
    from scale.report.page import write_report as write_page

    joined = body(config)
    write_page(replace(config, path=str(joined.run_dir), out=""))
    return joined


def status(run_dir: Path | str) -> Status:
    """Returns how a run stands, running or not, without its lock. `str()` of it is a table."""
    from scale.report.status import status as body

    return body(run_dir)


def validate(cfg: Any) -> ValidationReport:
    """Returns what a simulator says of a grasp file or of all final files of a run; verdicts are written beside them.

    Args:
        cfg: a Config, or a DictConfig of the same shape; `path` names the file or the run's folder.

    Raises:
        InputError: the call cannot be served; it says why and what to do.
    """
    config = _checked(cfg)
    from scale.modes import paths

    targets = paths.validation_targets(config)
    from scale.modes.validate import validate as body

    return body(config, targets)


def export(cfg: Any) -> ExportReport:
    """Returns what was made of the grasps of a file or of a run: files in the format that the settings name.

    Args:
        cfg: a Config, or a DictConfig of the same shape; `path` names the file or the run's folder.

    Raises:
        InputError: the call cannot be served; it says why and what to do.
    """
    config = _checked(cfg)
    from scale.modes import paths

    jobs = paths.export_jobs(config)
    from scale.modes.export import export as body

    return body(config, jobs)


def import_results(cfg: Any) -> ImportReport:
    """Returns what was made of a result file of BimanGrasp, which `path` names: a grasp file.

    Arguments and errors are those of `export`.
    """
    config = _checked(cfg)
    from scale.modes import paths

    job = paths.import_job(config)
    from scale.modes.import_results import import_results as body

    return body(config, job)


def write_report(cfg: Any) -> ReportPage:
    """Returns the page about a run that was written: one HTML file, which needs no server and no network.

    Args:
        cfg: a Config, or a DictConfig of the same shape; `path` names the run's folder, `out` where the page goes.

    Raises:
        InputError: there is no run in that folder, or the page cannot be written.
    """
    config = _checked(cfg)
    from scale.report.page import write_report as body

    return body(config)


def check_hand(cfg: Any) -> HandReport:
    """Returns what the file of a hand holds and what it does not say; a complete hand's YAML and picture are written.

    Arguments and errors are those of `export`; `hand.mjcf` names the file.
    """
    config = _checked(cfg)
    from scale.modes import paths

    places = paths.hand_paths(config)
    from scale.modes.check_hand import check_hand as body

    return body(config, places)


def prepare_objects(cfg: Any) -> PreparationReport:
    """Returns what the meshes below `object_root` are, and prepares them in the folder `out` where that is set.

    Arguments and errors are those of `export`; a mesh that cannot be used is in the report with its reason.
    """
    config = _checked(cfg, has_plan=True)
    from scale.modes import paths

    chosen = paths.mesh_choice(config)
    from scale.modes.prepare_objects import prepare_objects as body

    return body(config, *chosen)


def view(cfg: Any) -> ViewReport:
    """Returns what the page shows that was made of a grasp file or of a run: a gallery for a browser.

    Args:
        cfg: a Config, or a DictConfig of the same shape; `path` names the file or the run's folder.

    Raises:
        InputError: the call cannot be served; it says why and what to do.
        RunError: a process that draws died.
    """
    refuse_bad_script()
    config = _checked(cfg)
    from scale.modes import paths

    chosen = paths.view_paths(config)
    from scale.viewer.page import view as body

    return body(config, *chosen)


def _checked(cfg: Any, has_plan: bool = False) -> Any:
    """Returns the settings as a Config, each in its range; `has_plan`: whether dry_run has something to print."""
    config = as_config(cfg)
    check_settings(config)
    if config.dry_run and not has_plan:
        raise InputError(f"dry_run=true with mode={config.mode}; it has no plan to print: leave dry_run out")
    return config
