"""Composes YAML files and overrides into the checked settings of a run."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from bimangrasp.errors import InputError
from conf.overrides import FOLDER, groups, key_types, lines, parse, unknown_key
from scale.settings.parsing import parse_gpus, parse_object_codes, read_target
from scale.settings.schema import RULES, Config, check_ranges, check_settings

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def load(overrides: list[str] | tuple[str, ...] = (), config_dir: str | Path | None = None) -> Config:
    """Returns the settings of a run: the shipped YAML files with these overrides, checked.

    Args:
        overrides: as on the command line, such as ["exp_name=mugs", "energy.w_pen=150"].
        config_dir: a folder of one's own YAML files (`hand/`, `filter/`, `experiment/`), searched as well.

    Raises:
        InputError: an unknown key or choice, a value of the wrong type or out of range, each by its name.
    """
    folder = _checked_folder(config_dir)
    parsed = parse(list(overrides), folder)
    for override in parsed:
        if override.is_sweep_override():
            raise InputError(
                f"{override.input_line!r} has several values; a list goes in brackets, as in 'gpus=[0,1]', "
                f"text with a comma in quotes inside the shell's quotes, and a sweep over values needs -m"
            )
    return check(_compose(lines(parsed), folder))


def check(cfg: DictConfig) -> Config:
    """Returns a composed configuration as the dataclass, with types, ranges and free forms checked.

    Raises:
        InputError: see `load`.
    """
    _refuse_numbers_for_text(cfg)
    try:
        typed = OmegaConf.merge(OmegaConf.structured(Config), cfg)
        check_ranges(OmegaConf.to_container(typed, resolve=True))  # by the full key, which a dataclass does not know
        config = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        raise InputError(_explained(error, cfg)) from error
    check_settings(config)
    parse_object_codes(config.object_code_list)
    read_target(config.target_count_per_object)
    parse_gpus(config.gpus)
    return config


def _compose(overrides: list[str], config_dir: Path | None) -> DictConfig:
    """Returns the composed YAML, unchecked."""
    search = [f"hydra.searchpath=['file://{config_dir}']"] if config_dir else []
    try:
        with initialize_config_dir(str(FOLDER), version_base="1.3", job_name="bimangrasp"):
            return compose("config", overrides=[*search, *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(f"the configuration cannot be composed: {error}") from error


def _checked_folder(config_dir: str | Path | None) -> Path | None:
    """Returns the folder as an absolute path; refuses one that is not there."""
    if config_dir is None:
        return None
    if not Path(config_dir).is_dir():
        raise InputError(f"config_dir={str(config_dir)!r} is no folder; wanted one with hand/ or experiment/")
    folder = Path(config_dir).resolve()
    for group, names in groups(None).items():
        hidden = sorted(name for name in names if folder != FOLDER and (folder / group / f"{name}.yaml").is_file())
        if hidden:
            raise InputError(
                f"{folder / group / hidden[0]}.yaml has the name of a file of the package, which is read in its place: "
                f"rename it, and choose it as {group}=<its new name>"
            )
    return folder


def _refuse_numbers_for_text(cfg: DictConfig) -> None:
    """Refuses a number in a YAML file where text is wanted: its spelling is already lost."""
    for key, declared in key_types().items():
        value = OmegaConf.select(cfg, key, throw_on_missing=False) if declared is str else None
        if value is not None and not isinstance(value, str):
            raise InputError(f"{key}={value!r} is read as {type(value).__name__}; wanted text: quote it in the YAML")


def _explained(error: OmegaConfBaseException, cfg: DictConfig) -> str:
    """Returns what the schema refused: the key, the value, the type that is wanted."""
    key = str(getattr(error, "full_key", "") or "")
    if isinstance(error, ConfigKeyError):
        return unknown_key(key)
    wanted = RULES[key].wanted if key in RULES else KINDS.get(key_types().get(key), "a section of settings")
    return f"{key}={OmegaConf.select(cfg, key)!r}: wanted {wanted}"
