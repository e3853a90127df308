"""Computes all energies of a batch and their gradient in a dozen kernels, one source for CPU and CUDA (NVIDIA Warp).

`evaluator.FusedEvaluator` runs them in order; every sum has one thread and one order, and there are no atomics. The
plain PyTorch functions in `energy.energies` are their oracle.
"""

import warp

from bimangrasp.builtin import use_writable_kernel_cache

use_writable_kernel_cache()
warp.config.quiet = True  # older versions
warp.config.cuda_output = "cubin"  # machine code: else the driver compiles, and its version has a part in the bits
warp.config.log_level = 40  # newer ones: errors alone
