"""Grasps to look at: pictures drawn without a window, and a page with a gallery and scenes that turn."""
