"""A short storm; `benchmarks/README.md` has the long one."""

import pytest

from benchmarks import storm


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "validators"), [(1, 0), (3, 2)])
def test_kills_at_random_lose_nothing_and_leave_the_same_bytes(tmp_path, seed, validators):
    short = storm.Storm(quota=24, kills=4, mean_s=0.5, parent_share=0.4, round_s=0.1, validators=validators)
    damage = storm.blow(short, 1, tmp_path, seed)
    assert damage.is_none, damage
    assert damage.trials == 1 and damage.rounds >= 9


@pytest.mark.slow
def test_what_a_storm_breaks_is_counted(tmp_path):
    calm = storm.Storm(quota=9, kills=0, round_s=0.0)
    storm.make_objects(tmp_path / "objects")
    for name in ("one", "two"):
        assert storm.has_ended(storm.start(calm, tmp_path, name), 60)
    damage = storm.Damage()
    storm.compare(tmp_path / "one", tmp_path / "two", damage)
    assert damage.is_none and damage.rounds > 0
    (tmp_path / "two" / "final" / "slab.h5").unlink()
    journal = tmp_path / "two" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() * 2)
    storm.compare(tmp_path / "one", tmp_path / "two", damage)
    assert (damage.lost, damage.different) == (9, 1) and damage.redone > 0 and not damage.is_none
