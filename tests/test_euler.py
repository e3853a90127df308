from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bimangrasp.geometry.rotation import euler_to_matrix, matrix_to_euler

ANGLES = st.lists(
    st.one_of(st.floats(-7, 7), st.sampled_from([0.0, math.pi / 2, -math.pi / 2, math.pi, 1e-9])),
    min_size=3,
    max_size=3,
).map(np.array)


@given(ANGLES)
def test_the_matrix_is_scipys(angles):
    np.testing.assert_allclose(euler_to_matrix(angles), Rotation.from_euler("xyz", angles).as_matrix(), atol=1e-14)


@given(ANGLES)
def test_angles_of_a_matrix_give_it_back_at_gimbal_lock_too(angles):
    matrix = euler_to_matrix(angles)
    found = matrix_to_euler(matrix)
    np.testing.assert_allclose(euler_to_matrix(found), matrix, atol=1e-14)
    assert abs(found[1]) <= math.pi / 2 + 1e-15


@given(ANGLES, st.integers(0, 100))
def test_rounding_near_gimbal_lock_costs_no_more_than_itself(angles, seed):
    angles[1] = math.copysign(math.pi / 2, angles[1])
    noise = np.random.default_rng(seed).normal(size=(3, 3)) * 1e-7
    matrix = (euler_to_matrix(angles) + noise).astype(np.float32)
    np.testing.assert_allclose(euler_to_matrix(matrix_to_euler(matrix)), matrix, atol=1e-6)


def test_angles_away_from_the_lock_are_scipys_own():
    turns = Rotation.random(200, rng=np.random.default_rng(1))
    found = matrix_to_euler(turns.as_matrix().reshape(2, 100, 3, 3))
    np.testing.assert_allclose(found.reshape(-1, 3), turns.as_euler("xyz"), atol=1e-9)


def test_a_number_that_is_none_stays_one():
    assert np.isnan(euler_to_matrix(np.array([np.nan, 0, 0]))).any()
    assert np.isnan(matrix_to_euler(np.full((3, 3), np.nan))).all()
