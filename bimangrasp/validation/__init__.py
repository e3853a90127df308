"""Whether grasps hold: convex pieces, simulation, verdicts and the metrics that papers report."""
