"""Holds the weights and constants of the energy, and which kernels compute it; imports no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from bimangrasp.energy_terms import ENERGY_TERMS, Term
from bimangrasp.errors import InputError
from bimangrasp.ranges import NOT_NEGATIVE, Checked, among

PLAIN, WARP = "plain", "warp"
KERNELS = {PLAIN: "plain-2", WARP: "warp-2"}
"""The paths with their versions; a version is raised by hand with every change that moves a bit of the results."""

INSTALL_WARP = "pip install warp-lang"
"""Brings Warp to where it is missing: it is installed along (setup.py) unless it has no wheel there."""

_Weights = make_dataclass(
    "_Weights", [(term.weight, Annotated[float, NOT_NEGATIVE]) for term in ENERGY_TERMS], bases=(Checked,)
)


@dataclass
class EnergyConfig(_Weights):
    """Weights of the terms, a field for each row of `energy_terms`, and constants (BimanGrasp, RA-L 2024, section III).

    Attributes:
        w_fc, w_dis, w_pen, w_spen, w_joints, w_vew: weights of force closure, contact distance, penetration,
            self-penetration, joint limits and wrench volume in the total.
        w_depth: weight of the hands' depth in the object.
        w_equilibrium: weight of the residual wrench.
        keypoint_distance: two penetration keypoints of one hand closer than this cost energy, m.
        friction: coefficient with which the contacts press in the residual wrench.
        normal_step: the residual wrench's gradient sees how the normals turn as contacts move, between points so far to
            both sides, m; 0 leaves them constant.
        inter_hand: "right_points" measures the right hand's surface points against the left hand only,
            "symmetric" takes the mean of both directions.
    """

    keypoint_distance: Annotated[float, NOT_NEGATIVE]
    friction: Annotated[float, NOT_NEGATIVE]
    normal_step: Annotated[float, NOT_NEGATIVE]
    inter_hand: Annotated[str, among("right_points", "symmetric")]

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term by its key, in the table's order, as grasp files name them."""
        return {term.weight: self.weight(term) for term in ENERGY_TERMS}

    def weight(self, term: Term) -> float:
        """Returns the weight of a term in the total."""
        return getattr(self, term.weight)

    def computes(self, term: Term) -> bool:
        """Whether a term is computed; an optional one without weight is not, and is 0."""
        return not term.is_optional or self.weight(term) > 0


def chosen_path(name: str) -> str:
    """Returns the path that `kernels=name` means here; "auto" takes the fastest that is installed.

    Raises:
        InputError: there is no such path, or what it needs is not installed.
    """
    if name != "auto" and name not in KERNELS:
        raise InputError(f"kernels={name!r} is unknown; choose auto, {', '.join(KERNELS)}")
    if name == WARP and _warp_version() is None:
        raise InputError(f"kernels=warp needs NVIDIA Warp, which is not installed: {INSTALL_WARP}, or kernels=plain")
    if name == "auto":
        return PLAIN if _warp_version() is None else WARP
    return name


def resolve_kernels(name: str) -> str:
    """Returns the version of the path that `kernels=name` means here, as the platform names it.

    Raises:
        InputError: see `chosen_path`.
    """
    path = chosen_path(name)
    return f"{KERNELS[path]} ({_warp_version()})" if path == WARP else KERNELS[path]


def _warp_version() -> str | None:
    try:
        return version("warp-lang")
    except PackageNotFoundError:
        return None
