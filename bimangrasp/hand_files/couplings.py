"""Reads which joints of a hand move together, from its model and its YAML, and says what of it cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.polynomial import Polynomial

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import CouplingRule
from bimangrasp.hand_files.tables import check_names
from bimangrasp.hands.couplings import DEGREES, FIXED, Couplings, Follower, Tendon, coupling_rules
from bimangrasp.hands.description import HandDescription, on_couplings

Rules = Mapping[str, CouplingRule]
"""Name of a joint or tendon -> how it is coupled."""

LEAST_RANGE = 1e-3
"""Below this a coordinate whose joints have ranges has none, rad: a coupling has the wrong sign."""

NARROW = 1e-3
"""Limits of a motor that are closer to each other than its joints' are named from this on, rad."""

_EQUALITY = mujoco.mjtEq


class FileCouplings(NamedTuple):
    """What a file says of couplings.

    Attributes:
        rules: those that can be read.
        unread: those that cannot, a phrase for each, with what it was.
    """

    rules: dict[str, CouplingRule]
    unread: list[str]


def coupled(hand: HandDescription, model: mujoco.MjModel, stated: Rules) -> HandDescription:
    """Returns a hand with the couplings of its model, those of `hand.couplings` put in their place or added.

    Raises:
        InputError: the couplings contradict each other, or the joints' limits.
    """
    rules = read_couplings(model, hand.joint_names).rules
    stated = {name: _completed(rule, rules.get(name, CouplingRule())) for name, rule in stated.items()}
    _check_removals(stated, rules, hand.joint_names)
    couplings = _resolved(rules | stated, hand.joint_names)
    hand = replace(hand, couplings=couplings)
    if not couplings:
        return hand
    return replace(hand, joint_mean=placed_on_couplings(hand, hand.joint_mean, "the hand's file"))


def placed_on_couplings(hand: HandDescription, joints: np.ndarray, source: str) -> np.ndarray:
    """Returns joint values (J,), rad, on the couplings of a hand.

    Raises:
        InputError: limits leave a coupling no range to move in; it names a joint of each, and `source` has the limits.
    """
    try:
        placed = on_couplings(hand, joints)
    except ValueError as error:
        joints = [hand.joint_names[joint] for joint in error.args]
        raise InputError(
            f"the couplings of {', '.join(map(repr, joints))} never leave all that move together within their limits; "
            f"change their ranges in {source}, or the couplings: {'; '.join(map(_removal, joints))}"
        ) from error
    table = hand.coordinates
    for number, moved in enumerate(table.moved):
        least = min((hand.joint_upper[joint] - hand.joint_lower[joint] for joint in moved), default=np.inf)
        if table.upper[number] - table.lower[number] < LEAST_RANGE < least:
            names = " and ".join(repr(hand.joint_names[joint]) for joint in moved)
            raise InputError(
                f"{names} move together and have no range in which all are within their limits: one would have to turn "
                f"the other way; is the sign of the factor right? {_removal(hand.joint_names[moved[-1]])}, and "
                f"hand.couplings states another one"
            )
    return placed


def _completed(rule: CouplingRule, known: CouplingRule) -> CouplingRule:
    """Returns a stated rule with the leader that the file gives, where only the numbers are stated."""
    is_number = rule.polynomial and not (rule.follows or rule.tendon) and any(rule.polynomial[1:])
    return replace(rule, follows=known.follows) if is_number else rule


def _check_removals(stated: Rules, rules: Rules, joint_names: Sequence[str]) -> None:
    """Refuses to remove what is not there."""
    removed = [name for name, rule in stated.items() if not (rule.coupled or rule.tendon or rule.follows)]
    check_names(removed, [*joint_names, *rules], "hand.couplings")
    all_rules = rules | dict(stated)
    for name in removed:
        pulling = [tendon for tendon, rule in all_rules.items() if rule.coupled and name in rule.tendon]
        if name not in rules and pulling:
            raise InputError(f"joint {name!r} is coupled by tendon {pulling[0]!r}; {_removal(pulling[0])}")


def _removal(name: str) -> str:
    """Returns what removes a coupling; Hydra takes no other letters in the name of a key."""
    if re.fullmatch(r"\w+", name):
        return f"+hand.couplings.{name}.coupled=false removes it"
    return f"a line {name!r}: {{coupled: false}} below couplings in the hand's YAML removes it"


def rules_of(couplings: Couplings, joint_names: Sequence[str]) -> dict[str, CouplingRule]:
    """Returns couplings as a YAML states them."""
    return {name: CouplingRule(**rule) for name, rule in coupling_rules(couplings, joint_names).items()}


# ---- from the model


def read_couplings(model: mujoco.MjModel, joint_names: Sequence[str]) -> FileCouplings:
    """Returns the couplings of a compiled hand: equalities of joints and of fixed tendons, and tendons with a motor.

    Args:
        model: the hand alone.
        joint_names: the joints that count.
    """
    reader = _Reader(model, joint_names)
    for equality in range(model.neq):
        reader.add_equality(equality)
    for tendon in range(model.ntendon):
        reader.add_tendon(tendon)
    return FileCouplings(reader.rules, reader.unread)


class _Pull(NamedTuple):
    """A tendon whose length is the sum of coefficient times joint value.

    Attributes:
        name: of the tendon.
        members: joint -> coefficient.
        reference: its length in the model's reference pose.
    """

    name: str
    members: dict[str, float]
    reference: float


class _Reader:
    """Collects couplings of a model by the names of its joints."""

    def __init__(self, model: mujoco.MjModel, joint_names: Sequence[str]):
        self.rules: dict[str, CouplingRule] = {}
        self.unread: list[str] = []
        self._model, self._names = model, joint_names
        self._tied: set[int] = set()  # tendons that an equality speaks of
        kinds = model.actuator_trntype.tolist()
        targets = list(zip(kinds, model.actuator_trnid[:, 0].tolist(), strict=True))
        of_joints = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
        self._driven = {model.joint(target).name for kind, target in targets if kind in of_joints}
        self._driven_tendons = {
            target
            for actuator, (kind, target) in enumerate(targets)
            if kind == int(mujoco.mjtTrn.mjTRN_TENDON) and _takes_position(model, actuator)
        }

    def add_equality(self, equality: int) -> None:
        """Reads an equality, or says what it was."""
        model, kind = self._model, int(self._model.eq_type[equality])
        what = f"equality {_name(model.equality(equality).name, equality)}"
        if kind not in (int(_EQUALITY.mjEQ_JOINT), int(_EQUALITY.mjEQ_TENDON)):
            self.unread.append(f"{what} is of type {_EQUALITY(kind).name.removeprefix('mjEQ_').lower()}")
        elif not model.eq_active0[equality]:
            self.unread.append(f"{what} is switched off (active=false)")
        elif kind == int(_EQUALITY.mjEQ_JOINT):
            self._add_joints(equality, what)
        else:
            self._add_tendons(equality, what)

    def _add_joints(self, equality: int, what: str) -> None:
        model = self._model
        ids = int(model.eq_obj1id[equality]), int(model.eq_obj2id[equality])
        names = [model.joint(joint).name for joint in ids if joint >= 0]
        if not set(names) <= set(self._names):
            self.unread.append(f"{what} of {' and '.join(map(repr, names))}, which are no two hinges of the hand")
            return
        own, *other = (float(model.qpos0[model.jnt_qposadr[joint]]) for joint in ids if joint >= 0)
        polynomial = Polynomial(model.eq_data[equality, :DEGREES])
        leader = names[1] if other else ""
        absolute = own + (polynomial(Polynomial([-other[0], 1.0])) if other else Polynomial(polynomial.coef[:1]))
        self._follow(names[0], leader, absolute, what)

    def _add_tendons(self, equality: int, what: str) -> None:
        model = self._model
        tendons = [int(t) for t in (model.eq_obj1id[equality], model.eq_obj2id[equality]) if t >= 0]
        pulls = [self._pull(tendon) for tendon in tendons]
        if None in pulls:
            self.unread.append(f"{what} is about a tendon that is not fixed to hinges of the hand alone")
            return
        self._tied.update(tendons)
        polynomial = Polynomial(model.eq_data[equality, :DEGREES])
        if len(pulls) == 1:
            self._add_constant(pulls[0], pulls[0].reference + float(polynomial.coef[0]), what)
            return
        given, scale = pulls[1], 1.0
        leader = given.name
        if len(given.members) == 1:
            ((leader, scale),) = given.members.items()
        absolute = pulls[0].reference + polynomial(Polynomial([-given.reference, scale]))
        motored = [pull for pull in pulls if len(pull.members) > 1 and not self._driven.isdisjoint(pull.members)]
        if motored:
            ties = f"{what} ties tendons {pulls[0].name!r} and {given.name!r}"
            self.unread.append(f"{ties}, but motors of their own move joints of {_sum(motored[0])}")
            return
        self._share(given)
        if len(pulls[0].members) == 1:
            ((joint, coefficient),) = pulls[0].members.items()
            self._follow(joint, leader, absolute / coefficient, what)
        else:
            self._share(pulls[0])
            self._follow(pulls[0].name, leader, absolute, what)

    def _add_constant(self, pull: _Pull, length: float, what: str) -> None:
        """Reads a tendon of constant length: of two joints one follows the other."""
        joints = list(pull.members)
        if len(joints) == 1:
            self._follow(joints[0], "", Polynomial([length / pull.members[joints[0]]]), what)
        elif len(joints) == 2:
            leader, joint = sorted(joints, key=lambda name: (name not in self._driven, self._names.index(name)))
            share = Polynomial([length, -pull.members[leader]]) / pull.members[joint]
            self._follow(joint, leader, share, what)
        else:
            self.unread.append(f"{what} keeps {_sum(pull)} constant: more than one joint would follow")

    def _follow(self, name: str, leader: str, polynomial: Polynomial, what: str) -> None:
        """Lets a joint or tendon follow another; the other way round where only the follower has a motor."""
        coefficients = np.trim_zeros(polynomial.coef, "b")
        earlier = self.rules.get(name, CouplingRule())
        if earlier.polynomial and earlier.follows == leader and _are_equal(earlier.polynomial, coefficients):
            return  # the same is said twice
        is_taken = name in self.rules and self.rules[name].follows != "" or name in self._driven - {leader}
        if leader and len(coefficients) == 2 and is_taken and leader not in self._driven and leader not in self.rules:
            name, leader = leader, name
            coefficients = np.array([-coefficients[0] / coefficients[1], 1 / coefficients[1]])
        known = self.rules.get(name, CouplingRule())
        if known.polynomial:
            self.unread.append(f"{what} lets {name!r} follow {leader or 'nothing'!r}, but it follows already")
            return
        numbers = [float(x) for x in (coefficients if len(coefficients) else [0.0])]
        self.rules[name] = replace(known, follows=leader, polynomial=numbers)

    def _share(self, pull: _Pull) -> None:
        """Lets the joints of a tendon share it."""
        if len(pull.members) > 1:
            self.rules[pull.name] = replace(self.rules.get(pull.name, CouplingRule()), tendon=dict(pull.members))

    def add_tendon(self, tendon: int) -> None:
        """Reads a tendon that no equality speaks of, or says what it was; one that moves a single joint is none."""
        what, pull = f"tendon {_name(self._model.tendon(tendon).name, tendon)}", self._pull(tendon)
        if pull is None:
            self.unread.append(
                f"{what} runs through sites or past geoms, or along other joints than hinges of the hand"
            )
            return
        members = self._without_followers(pull.members)
        if len(members) < 2 or (tendon in self._tied and tendon not in self._driven_tendons):
            return
        used = {joint for rule in self.rules.values() for joint in rule.tendon}
        limits = self._model.tendon_range[tendon]
        if tendon not in self._driven_tendons:
            limited = f", whose length is limited to {limits[0]:g} ... {limits[1]:g}"
            limited = limited if self._model.tendon_limited[tendon] else ""
            self.unread.append(f"{what} is {_sum(pull)}{limited}, and no position actuator pulls it")
        elif not self._driven.isdisjoint(members):
            self.unread.append(f"{what} is {_sum(pull)}, but these joints have actuators of their own")
        elif not used.isdisjoint(members) and pull.name not in self.rules:
            self.unread.append(f"{what} is {_sum(pull)}, but another tendon moves these joints")
        elif any(self.rules.get(joint, CouplingRule()).polynomial for joint in members):
            self.unread.append(f"{what} is {_sum(pull)}, of which a joint follows by an equality")
        else:
            self._share(pull._replace(members=members))
            self._say_limits(tendon, what)

    def _say_limits(self, tendon: int, what: str) -> None:
        """Says of a tendon that its own limits, or those of its motor, are not read."""
        model = self._model
        if model.tendon_limited[tendon]:
            low, high = model.tendon_range[tendon]
            self.unread.append(f"{what} is limited to {low:g} ... {high:g}; only the limits of its joints count")
        ends = np.zeros(2)
        for joint, coefficient in self._pull(tendon).members.items():
            ends += np.sort(coefficient * model.joint(joint).range)
        for actuator in np.flatnonzero(model.actuator_trnid[:, 0] == tendon):
            is_its = model.actuator_trntype[actuator] == int(mujoco.mjtTrn.mjTRN_TENDON)
            low, high = model.actuator_ctrlrange[actuator]
            if is_its and model.actuator_ctrllimited[actuator] and (low > ends[0] + NARROW or high < ends[1] - NARROW):
                self.unread.append(
                    f"the motor of {what} is limited to {low:g} ... {high:g}, its joints to {ends[0]:g} ... "
                    f"{ends[1]:g}; only the limits of its joints count"
                )

    def _without_followers(self, members: dict[str, float]) -> dict[str, float]:
        """Returns what a tendon is of the joints that lead, where others of it follow these in proportion."""
        led: dict[str, float] = {}
        for joint, coefficient in members.items():
            leader, factor = joint, coefficient
            while (rule := self.rules.get(leader)) and rule.follows in members and _is_proportion(rule):
                leader, factor = rule.follows, factor * rule.polynomial[1]
            led[leader] = led.get(leader, 0.0) + factor
        return {joint: coefficient for joint, coefficient in led.items() if coefficient}

    def _pull(self, tendon: int) -> _Pull | None:
        """Returns a fixed tendon of hinges of the hand; None for any other."""
        model = self._model
        span = slice(model.tendon_adr[tendon], model.tendon_adr[tendon] + model.tendon_num[tendon])
        if (model.wrap_type[span] != int(mujoco.mjtWrap.mjWRAP_JOINT)).any():
            return None
        names = [model.joint(int(joint)).name for joint in model.wrap_objid[span]]
        if not set(names) <= set(self._names):
            return None
        name = _tendon_name(model.tendon(tendon).name or f"tendon_{tendon}", self._names)
        members = {joint: float(c) for joint, c in zip(names, model.wrap_prm[span], strict=True) if c}
        return _Pull(name, members, float(model.tendon_length0[tendon]))


def _tendon_name(name: str, joint_names: Sequence[str]) -> str:
    """Returns a name that is no joint's."""
    return f"{name}_tendon" if name in joint_names else name


def _is_proportion(rule: CouplingRule) -> bool:
    """Whether a joint is its leader's value times a factor."""
    return len(rule.polynomial) == 2 and not rule.polynomial[0]


def _are_equal(polynomial: Sequence[float], other: np.ndarray) -> bool:
    """Whether two polynomials have the same coefficients, but for rounding."""
    return len(polynomial) == len(other) and np.allclose(polynomial, other)


def _takes_position(model: mujoco.MjModel, actuator: int) -> bool:
    """Whether an actuator pulls its target to the position that it is given."""
    is_affine = model.actuator_biastype[actuator] == int(mujoco.mjtBias.mjBIAS_AFFINE)
    return bool(is_affine and model.actuator_biasprm[actuator, 1] < 0)


def _name(name: str, number: int) -> str:
    return repr(name) if name else f"number {number}"


def _sum(pull: _Pull) -> str:
    """Returns a tendon as a formula."""
    return " + ".join(f"{coefficient:g} {joint}" for joint, coefficient in pull.members.items())


# ---- from names to numbers


def _resolved(rules: Rules, joint_names: Sequence[str]) -> Couplings:
    """Returns couplings by the numbers of joints and tendons.

    Raises:
        InputError: a name that the hand does not have, numbers that are none, or a joint with two couplings.
    """
    rules = {name: rule for name, rule in rules.items() if rule.coupled}
    pulled = [name for name, rule in rules.items() if rule.tendon]
    for name, rule in rules.items():
        _check_rule(name, rule, joint_names, pulled)
    # in the order of the joints, so that a hand has one hash whatever the order of its rules
    members = {name: sorted(rules[name].tendon.items(), key=lambda item: joint_names.index(item[0])) for name in pulled}
    pulled.sort(key=lambda name: joint_names.index(members[name][0][0]))
    sizes = {name: sum(abs(c) for c in rules[name].tendon.values()) for name in pulled}
    node_of = {name: number for number, name in enumerate((*joint_names, *pulled))}
    followers = []
    for name, rule in rules.items():
        if rule.tendon and not (rule.follows or rule.polynomial):
            continue
        powers = sizes.get(rule.follows, 1.0) ** np.arange(DEGREES) / sizes.get(name, 1.0)
        given = np.array(list(rule.polynomial) or [0.0, 1.0], float)
        polynomial = np.pad(given, (0, DEGREES - len(given))) * powers
        leader = node_of[rule.follows] if rule.follows else FIXED
        followers.append(Follower(node_of[name], leader, tuple(polynomial.tolist())))
    tendons = [
        Tendon(
            name,
            tuple(node_of[joint] for joint, _ in members[name]),
            tuple(float(c) / sizes[name] for _, c in members[name]),
        )
        for name in pulled
    ]
    _check_order(tendons, followers, list(node_of), len(joint_names))
    followers = sorted(followers, key=lambda follower: follower.node)
    return Couplings(tuple(tendons), tuple(followers))


def _check_rule(name: str, rule: CouplingRule, joint_names: Sequence[str], tendons: Iterable[str]) -> None:
    key = f"hand.couplings.{name}"
    if not (rule.tendon or rule.follows or rule.polynomial):
        raise InputError(
            f"{key} says nothing; wanted follows, tendon, polynomial, or coupled=false to remove a coupling"
        )
    if rule.tendon and name in joint_names:
        raise InputError(f"{key} has a tendon, but {name!r} is a joint; wanted a name of its own for a tendon")
    if not rule.tendon:
        check_names([name], joint_names, "hand.couplings")
    check_names(rule.tendon, joint_names, f"{key}.tendon")
    if rule.follows:
        check_names([rule.follows], [*joint_names, *tendons], f"{key}.follows")
    coefficients = list(rule.tendon.values())
    if rule.tendon and (len(coefficients) < 2 or not all(np.isfinite(c) and c for c in coefficients)):
        raise InputError(f"{key}.tendon is {dict(rule.tendon)}; wanted two joints or more, none with the coefficient 0")
    if any(rule.polynomial[1:]) and not (rule.follows or rule.tendon):
        raise InputError(
            f"{key}.polynomial is {list(rule.polynomial)} and follows nothing; wanted {key}.follows=<a joint> with it, "
            f"or the one number at which it is fixed"
        )
    if len(rule.polynomial) > DEGREES or not np.isfinite(np.array(rule.polynomial, float)).all():
        raise InputError(
            f"{key}.polynomial is {list(rule.polynomial)}; wanted up to {DEGREES} numbers, [offset, factor]"
        )


def _check_order(tendons: Sequence[Tendon], followers: Sequence[Follower], names: Sequence[str], joints: int) -> None:
    """Refuses joints that two couplings move, rings, and hands of which nothing is free."""
    above: dict[int, int] = {follower.node: follower.leader for follower in followers}
    following = set(above)
    for number, tendon in enumerate(tendons, start=joints):
        for joint in tendon.joints:
            if joint in above:
                is_shared = joint not in following
                other = names[above[joint] if is_shared else joint]
                raise InputError(
                    f"joint {names[joint]!r} has two couplings: tendon {tendon.name!r} and "
                    f"{f'tendon {other!r}' if is_shared else 'one of its own'}; {_removal(tendon.name)}, and "
                    f"{_removal(other)}"
                )
            above[joint] = number
    for node in above:
        path = [node]
        while (leader := above.get(path[-1], FIXED)) != FIXED:
            path.append(leader)
            if leader == node:
                ring = " -> ".join(names[part] for part in path)
                removable = next(names[part] for part in path if part in following)
                raise InputError(f"couplings in a ring: {ring}; {_removal(removable)}")
            if len(path) > len(names):
                break  # it leads into a ring that is found from there
    if len(above) == len(names):
        raise InputError("every joint follows another or is fixed by hand.couplings; wanted one at least that is free")
