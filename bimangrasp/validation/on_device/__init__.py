"""Simulates many grasps at once on the device of a worker, in MuJoCo Warp, an extra of the installation."""

import warp

from bimangrasp.builtin import use_writable_kernel_cache

use_writable_kernel_cache()
warp.config.quiet = True  # older versions
warp.config.log_level = 40  # newer ones: errors alone
