"""What a worker makes of the optimizer's result."""

import numpy as np
import pytest
import torch
from scene import built_in, shadow_hands

import conf
from bimangrasp.energy.energies import Energies, energies
from bimangrasp.files.schema import GRASP_FIELDS
from bimangrasp.geometry.rotation import matrix_to_rot6d, rot6d_to_matrix
from bimangrasp.grasp import Grasps
from bimangrasp.synthesis import synthesize
from scale.engine.synthesizer import columns_from

F32 = torch.float32
SETTINGS = ["round_batch_size=6", "num_iterations=8", "curve_stride=4", "initialization.hull_samples_per_grasp=10"]
SETTINGS += ["experiment=null"]


@pytest.mark.slow
def test_the_columns_of_a_grasp_give_its_contacts_and_energies():
    config = conf.load(SETTINGS).synthesis
    hands, obj = shadow_hands(F32), built_in("mug", F32)
    result = synthesize(hands, obj, config, seed=1)
    columns = {name: torch.as_tensor(value) for name, value in columns_from(result).items()}
    stored = Grasps(
        columns["hand/translation"],
        matrix_to_rot6d(columns["hand/rotation"]),
        columns["hand/joints"],
        columns["contact/candidate"].long(),
    )
    points = hands.contact_points(hands.link_frames(stored), stored.candidate).float()
    torch.testing.assert_close(points, columns["contact/point"], atol=1e-6, rtol=0)
    again = energies(hands, obj, columns["object_scale"], stored, config.energy)
    for name in Energies._fields:
        torch.testing.assert_close(getattr(again, name), columns[f"energy/{name}"], rtol=1e-3, atol=1e-5)
    assert not torch.equal(result.initial.candidate, result.grasps.candidate)


def test_the_start_is_stored_as_the_start():
    result = synthesize(shadow_hands(F32), built_in("mug", F32), conf.load(SETTINGS).synthesis, seed=1)
    columns = columns_from(result)
    np.testing.assert_array_equal(columns["initial/translation"], result.initial.translation)
    np.testing.assert_array_equal(columns["initial/joints"], result.initial.joints)
    rotation = rot6d_to_matrix(result.initial.rotation)
    np.testing.assert_allclose(columns["initial/rotation"], rotation, atol=1e-6)
    assert not np.array_equal(columns["initial/translation"], columns["hand/translation"])
    given = {field.name for field in GRASP_FIELDS} - {"seed", "round", "row"}
    assert given <= set(columns)
