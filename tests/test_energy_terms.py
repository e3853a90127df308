"""The table of terms: whatever has a row is weighed, computed, filtered and loaded without PyTorch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import quick_conf

from bimangrasp.energy.config import EnergyConfig
from bimangrasp.energy.energies import TERM_FUNCTIONS, Energies
from bimangrasp.energy_terms import ENERGY_TERMS, TERMS, TOTAL, Slot
from bimangrasp.files.schema import SHARD_FIELDS
from scale.settings.schema import FILTERS, FilterConfig


def test_every_term_has_a_weight_a_function_and_columns():
    weights = {field.name for field in fields(EnergyConfig) if field.name.startswith("w_")}
    assert weights == {term.weight for term in ENERGY_TERMS}
    assert list(TERM_FUNCTIONS) == [term.name for term in ENERGY_TERMS]
    assert Energies._fields == TERMS == tuple(Slot.__members__) and TERMS[-1] == TOTAL.name
    for group in ("energy", "curve"):
        columns = [field.name for field in SHARD_FIELDS if field.name.startswith(f"{group}/")]
        assert [name for name in columns if name.partition("/")[2] in TERMS] == [f"{group}/{name}" for name in TERMS]


def test_every_threshold_of_a_filter_has_a_setting():
    thresholds = [field.name for field in fields(FilterConfig) if field.name != "name"]
    assert thresholds == [term.name for term in ENERGY_TERMS if term.filter]
    assert {term.filter for term in ENERGY_TERMS if term.filter} <= set(FILTERS)


@pytest.mark.parametrize("term", ENERGY_TERMS, ids=lambda term: term.name)
def test_only_an_optional_term_without_weight_is_not_computed(term):
    config = quick_conf.load().energy
    setattr(config, term.weight, 0.0)
    assert config.computes(term) == (not term.is_optional)
    setattr(config, term.weight, 0.5)
    assert config.computes(term) and config.weight(term) == 0.5


@pytest.mark.parametrize("module", ["bimangrasp.energy_terms", "bimangrasp.energy.config"])
def test_settings_read_the_table_without_pytorch(module):
    code = f"import sys, {module}; print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"
