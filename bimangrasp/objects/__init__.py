"""Objects: meshes on the disk, their repair, their convex pieces, and the model that is grasped."""
