"""Simulates many grasps at once on the device of a worker, in MuJoCo Warp, an extra of the installation."""

import warp

warp.config.quiet = True  # older versions
warp.config.log_level = 40  # newer ones: errors alone
