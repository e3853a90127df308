"""All energies of a batch and their gradient in a dozen kernels, one source for CPU and CUDA (NVIDIA Warp).

`energy.FusedEnergies` is the door. The plain PyTorch functions in `energies` are its oracle.
"""

import warp

warp.config.quiet = True
