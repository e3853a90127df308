"""What `mode=export format=npy` wrote, read with nothing but NumPy. It is a pickle, as BimanGrasp's own files are."""

import sys

import numpy as np

grasps = np.load(sys.argv[1], allow_pickle=True)
left = grasps[0]["qpos_left"]
print(len(grasps), "grasps, each with", sorted(grasps[0]))
print("the first left hand stands at", [round(float(left[f"WRJT{axis}"]), 3) for axis in "xyz"], "m")
