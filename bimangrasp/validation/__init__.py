"""Physics as the judge: two protocols by which a simulator decides whether a grasp holds its object."""
