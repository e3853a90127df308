"""Moves samples: where each would go, and whether it does. The modules of `bimangrasp.sampler` are their oracles."""

import warp as wp

from bimangrasp.sampler.momentum import FLOOR

wp.set_module_options({"enable_backward": False})

CHUNK = wp.constant(32)  # samples that one thread adds up


@wp.struct
class Points:
    """A `Point` of every sample: (B, hand, dof), (B, hand, contact), (B), (B, hand, dof)."""

    position: wp.array3d(dtype=float)
    choice: wp.array3d(dtype=wp.int64)
    energy: wp.array(dtype=float)
    gradient: wp.array3d(dtype=float)


@wp.struct
class Draws:
    """The `Draws` of a step."""

    noise: wp.array3d(dtype=float)
    redraw: wp.array3d(dtype=float)
    choice: wp.array3d(dtype=wp.int64)
    acceptance: wp.array(dtype=float)


@wp.struct
class Annealing:
    """A `Schedule`, a number for each step."""

    step_size: wp.array(dtype=float)
    temperature: wp.array(dtype=float)
    switch_chance: wp.array(dtype=float)


@wp.struct
class Langevin:
    """Constants of Langevin steps, as in `OptimizerConfig`."""

    decay: float
    floor: float
    noise_factor: float
    is_own: bool  # whether each sample has a second moment of its own
    has_ratio: bool  # whether the acceptance carries the ratio of proposal densities


@wp.struct
class Momentum:
    """Constants of steps with momentum: a `Plan`, with the share of each coordinate in its part's mean, and decays."""

    part: wp.array(dtype=wp.int64)
    share_of_part: wp.array(dtype=float)
    size: wp.array(dtype=float)
    share: wp.array(dtype=float)
    first_weight: wp.array(dtype=float)
    second_weight: wp.array(dtype=float)
    first_decay: float
    second_decay: float


@wp.func
def is_finite(points: Points, sample: int) -> bool:
    """Whether energy and gradient of a sample are numbers; else it failed."""
    finite = wp.isfinite(points.energy[sample])
    for h in range(points.gradient.shape[1]):
        for d in range(points.gradient.shape[2]):
            finite = finite and wp.isfinite(points.gradient[sample, h, d])
    return finite


@wp.func
def take(points: Points, others: Points, sample: int):
    """Writes a sample of the others over the one of the points."""
    points.energy[sample] = others.energy[sample]
    for h in range(points.position.shape[1]):
        for d in range(points.position.shape[2]):
            points.position[sample, h, d] = others.position[sample, h, d]
            points.gradient[sample, h, d] = others.gradient[sample, h, d]
        for c in range(points.choice.shape[2]):
            points.choice[sample, h, c] = others.choice[sample, h, c]


@wp.func
def remember(best: Points, points: Points, sample: int):
    """Writes a sample over the best one where it costs less; see `mala.better`."""
    energy, least = points.energy[sample], best.energy[sample]
    if energy < least or (wp.isnan(least) and not wp.isnan(energy)):
        take(best, points, sample)


# ---- Langevin


@wp.kernel
def square_sums(points: Points, sums: wp.array3d(dtype=float), sound: wp.array(dtype=float)):
    """Adds up the squared gradients of a chunk of samples, and how many of these did not fail."""
    chunk, hand, d = wp.tid()
    first = chunk * CHUNK
    total, count = float(0.0), float(0.0)
    for sample in range(first, wp.min(first + CHUNK, points.energy.shape[0])):
        total += points.gradient[sample, hand, d] * points.gradient[sample, hand, d]
        if not wp.isnan(points.energy[sample]):
            count += 1.0
    sums[chunk, hand, d] = total
    if hand == 0 and d == 0:
        sound[chunk] = count


@wp.kernel
def shared_moment(
    constants: Langevin, sums: wp.array3d(dtype=float), sound: wp.array(dtype=float), second: wp.array3d(dtype=float)
):
    """Brings the second moment of all samples together up to date; see `mala.next_second_moment`."""
    hand, d = wp.tid()
    total, count = float(0.0), float(0.0)
    for chunk in range(sums.shape[0]):
        total += sums[chunk, hand, d]
        count += sound[chunk]
    mean = total / wp.max(count, 1.0)
    second[0, hand, d] = constants.decay * second[0, hand, d] + (1.0 - constants.decay) * mean


@wp.kernel
def propose_langevin(
    points: Points,
    constants: Langevin,
    annealing: Annealing,
    draws: Draws,
    step: wp.array(dtype=wp.int64),
    second: wp.array3d(dtype=float),
    proposals: Points,
    made: wp.array(dtype=wp.int64),
):
    """Says where a coordinate of a sample would go, and one of its choices; see `mala.propose`.

    `made` gets the number of steps before this one, for the kernel that counts the step and needs it too.
    """
    sample, hand, d = wp.tid()
    now = step[0]
    if sample == 0 and hand == 0 and d == 0:
        made[0] = now
    if d < points.position.shape[2]:
        gradient = points.gradient[sample, hand, d]
        row = int(0)
        if constants.is_own:
            row = sample
            second[row, hand, d] = (
                constants.decay * second[row, hand, d] + (1.0 - constants.decay) * gradient * gradient
            )
        scale = wp.sqrt(second[row, hand, d]) + constants.floor
        size = annealing.step_size[now]
        spread = constants.noise_factor * wp.sqrt(2.0 * size * annealing.temperature[now] / scale)
        way = spread * draws.noise[sample, hand, d] - size * gradient / scale
        proposals.position[sample, hand, d] = points.position[sample, hand, d] + way
    if d < points.choice.shape[2]:
        choice = points.choice[sample, hand, d]
        if draws.redraw[sample, hand, d] < annealing.switch_chance[now]:
            choice = draws.choice[sample, hand, d]
        proposals.choice[sample, hand, d] = choice


@wp.func
def log_ratio(
    points: Points,
    proposals: Points,
    second: wp.array3d(dtype=float),
    constants: Langevin,
    annealing: Annealing,
    sample: int,
    now: wp.int64,
) -> float:
    """Returns ln q(x | x') - ln q(x' | x) of a sample; see `mala.proposal_log_ratio`."""
    size, temperature = annealing.step_size[now], annealing.temperature[now]
    back, forth = float(0.0), float(0.0)
    row = wp.where(constants.is_own, sample, 0)
    for h in range(points.position.shape[1]):
        for d in range(points.position.shape[2]):
            scale = wp.sqrt(second[row, h, d]) + constants.floor
            variance = 2.0 * constants.noise_factor * constants.noise_factor * size * temperature / scale
            way = proposals.position[sample, h, d] - points.position[sample, h, d]
            ahead = way + size * points.gradient[sample, h, d] / scale
            behind = size * proposals.gradient[sample, h, d] / scale - way
            forth += ahead * ahead / variance
            back += behind * behind / variance
    return (forth - back) / 2.0


@wp.kernel
def settle_langevin(
    proposals: Points,
    constants: Langevin,
    annealing: Annealing,
    draws: Draws,
    second: wp.array3d(dtype=float),
    made: wp.array(dtype=wp.int64),
    points: Points,
    best: Points,
    keeps_best: bool,
    step: wp.array(dtype=wp.int64),
    accepted: wp.array(dtype=bool),
):
    """Accepts a proposal or not, and remembers the sample where it is the best so far; see `mala.accepts`."""
    sample = wp.tid()
    now = made[0]
    is_accepted = is_finite(proposals, sample)
    if is_accepted and not wp.isnan(points.energy[sample]):
        exponent = (points.energy[sample] - proposals.energy[sample]) / annealing.temperature[now + wp.int64(1)]
        if constants.has_ratio:
            exponent += log_ratio(points, proposals, second, constants, annealing, sample, now)
        is_accepted = draws.acceptance[sample] < wp.exp(exponent)
    accepted[sample] = is_accepted
    if is_accepted:
        take(points, proposals, sample)
    if keeps_best:
        remember(best, points, sample)
    if sample == 0:
        step[0] = now + wp.int64(1)


# ---- momentum


@wp.kernel
def propose_momentum(
    points: Points,
    constants: Momentum,
    step: wp.array(dtype=wp.int64),
    first: wp.array3d(dtype=float),
    second: wp.array3d(dtype=float),
    proposals: Points,
):
    """Brings the moments of a hand up to date and says where it would go; see `momentum.step`."""
    sample, hand = wp.tid()
    now = step[0]
    for p in range(second.shape[2]):
        square = float(0.0)
        for d in range(points.gradient.shape[2]):
            if int(constants.part[d]) == p:
                square += points.gradient[sample, hand, d] * points.gradient[sample, hand, d]
        decay = constants.second_decay
        mean = square * constants.share_of_part[p]
        second[sample, hand, p] = decay * second[sample, hand, p] + (1.0 - decay) * mean
    for d in range(points.gradient.shape[2]):
        decay = constants.first_decay
        moment = decay * first[sample, hand, d] + (1.0 - decay) * points.gradient[sample, hand, d]
        first[sample, hand, d] = moment
        scale = wp.sqrt(second[sample, hand, int(constants.part[d])] / constants.second_weight[now]) + FLOOR
        way = constants.size[d] * constants.share[now] * (moment / constants.first_weight[now]) / scale
        proposals.position[sample, hand, d] = points.position[sample, hand, d] - way


@wp.kernel
def settle_momentum(
    proposals: Points,
    points: Points,
    best: Points,
    keeps_best: bool,
    step: wp.array(dtype=wp.int64),
    moved: wp.array(dtype=bool),
):
    """Moves a sample that did not fail, and remembers it where it is the best so far."""
    sample = wp.tid()
    moved[sample] = is_finite(proposals, sample)
    if moved[sample]:
        take(points, proposals, sample)
    if keeps_best:
        remember(best, points, sample)
    if sample == 0:
        step[0] = step[0] + wp.int64(1)
