r"""Measures how D and H depend on the number of grasps, for the starts and the results of a large batch and its parts.

    python benchmarks/diversity.py --object_root DATA --objects NAME NAME --set experiment=firm --batch 512

D is the largest of a few eigenvalues of a sample covariance, so a small sample has a larger one: batches of different
sizes cannot be compared. "D at random" says what to compare with: the results with each hand turned at random, about as
diverse as hands can be. The parts are disjoint and drawn at random, since the starts of a batch are spread out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from quality import make, parser_of_batches, poses_of
from scipy.spatial.transform import Rotation

import conf
from bimangrasp.poses import Poses
from bimangrasp.synthesis import set_determinism
from bimangrasp.validation.summary import first_component_share, histogram_entropy
from scale.settings.parsing import resolve_objects

HEADINGS = "settings | object | grasps of a part | parts | D of the starts | D | D at random | H of the starts | H"


def turned(poses: Poses) -> Poses:
    """Returns poses whose hands are each turned to any direction with equal chance."""
    turns = Rotation.random(2 * poses.count, rng=np.random.default_rng(0)).as_matrix()
    return poses._replace(rotation=turns.reshape(poses.rotation.shape).astype(np.float32))


def parts_of(poses: Poses, size: int) -> Iterator[Poses]:
    """Yields disjoint parts of a batch, drawn at random but always the same ones."""
    order = np.random.default_rng(0).permutation(poses.count)
    for start in range(0, poses.count - size + 1, size):
        yield poses.select(order[start : start + size])


def mean_of(figure: Callable[[Poses], float], parts: list[Poses]) -> str:
    """Returns the mean of a figure over parts, as text."""
    return f"{np.mean([figure(part) for part in parts]):.3f}"


def main() -> None:
    """Prints the table: means over the parts."""
    options = parser_of_batches(__doc__, batch=512).parse_args()
    set_determinism(1)
    print(f"| {HEADINGS} |\n|{'---|' * (HEADINGS.count('|') + 1)}", flush=True)
    for settings in options.set or [""]:
        for entry in resolve_objects(options.object_root, options.objects):
            config = conf.load(
                ["experiment=null", f"round_batch_size={options.batch}", "curve_stride=0", *settings.split()]
            )
            synthesis = make(config, entry.path, options.seed).synthesis
            initial, grasps = poses_of(synthesis.initial), poses_of(synthesis.grasps)
            batches = (initial, grasps, turned(grasps))
            for size in (2**power for power in range(5, options.batch.bit_length())):
                starts, ends, random = ([*parts_of(poses, size)] for poses in batches)
                shares = [mean_of(first_component_share, parts) for parts in (starts, ends, random)]
                entropies = [mean_of(histogram_entropy, parts) for parts in (starts, ends)]
                cells = (settings, entry.code, str(size), str(len(ends)), *shares, *entropies)
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
