"""What people look at: pictures and pages. Nothing here is imported by what makes or tests grasps."""
