"""Hands and meshes that grasps were not made with are refused, by names, numbers and what to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import quick_conf
from toy_files import header, shadow_table

from bimangrasp.builtin import OBJECT_ROOT
from bimangrasp.errors import InputError
from bimangrasp.files.provenance import check_hand_table, check_hands, made_with, mesh_made_with, mesh_named
from bimangrasp.hand_files.loading import load_hands


@pytest.fixture(scope="module")
def hands():
    return load_hands(quick_conf.load().hand)


@pytest.fixture(scope="module")
def table():
    return shadow_table()


def test_hands_of_the_same_hash_are_taken_and_others_refused_with_both_hashes(hands, table):
    file = made_with("bowl.h5", header("bowl", table))
    check_hands(file, hands)
    other, hashed = file._replace(hand_name="toy", hand_sha256="ab" * 32), table.sha256[:16]
    wanted = rf"bowl.h5 has grasps of the hands 'toy' with sha256 abab\S+, this call has hand=shadow with {hashed}"
    with pytest.raises(InputError, match=wanted + ".*; name the hands of the file: hand=toy"):
        check_hands(other, hands, "shadow")
    with pytest.raises(InputError, match=r"those given have .*load_hands\(conf.load\(\['hand=toy'\]\).hand\)"):
        check_hands(other, hands)


def test_changed_hands_of_the_same_name_ask_for_the_files_they_came_from(hands, table):
    file = made_with("bowl.h5", header("bowl", table))
    changed = hands[0], replace(hands[1], joint_mean=hands[1].joint_mean + 1)
    with pytest.raises(InputError, match="use the MJCF and the YAML that the file was made with"):
        check_hands(file, changed, "shadow")


def test_tables_of_hands_may_differ_by_rounding_alone(table):
    shift = table.candidate_position + np.float32(1e-7)
    check_hand_table("bowl.h5", replace(table, sha256="0" * 64, candidate_position=shift), table)
    links = np.full_like(table.candidate_link, "root")
    for theirs in (
        replace(table, candidate_position=table.candidate_position + np.float32(1e-3)),
        replace(table, candidate_link=links),
    ):
        with pytest.raises(InputError, match="bowl.h5 was made with other contact candidates of the hand 'shadow'"):
            check_hand_table("bowl.h5", theirs, table)
    with pytest.raises(InputError, match="hand 'palms' with 22 joints, this call has hand=shadow with 22; name the"):
        check_hand_table("bowl.h5", replace(table, name="palms"), table)


def test_another_mesh_is_refused_and_none_too(table, tmp_path):
    file = made_with("bowl.h5", header("bowl", table))
    assert mesh_made_with(file, "").sha256 == file.mesh_sha256
    (tmp_path / "mug.obj").write_bytes((OBJECT_ROOT / "bowl.obj").read_bytes())
    with pytest.raises(InputError, match="bowl.h5 has no usable mesh: object 'bowl' .*those of 'mug'"):
        mesh_made_with(file, tmp_path)
    (tmp_path / "bowl.obj").write_bytes((OBJECT_ROOT / "bowl.obj").read_bytes() + b"# changed\n")
    with pytest.raises(InputError, match="bowl.h5 was made with another mesh of 'bowl' .*; set object_root to the"):
        mesh_made_with(file, tmp_path)
    assert mesh_named("bowl.npy", "bowl", tmp_path).sha256 != file.mesh_sha256, "a file that does not say is trusted"
