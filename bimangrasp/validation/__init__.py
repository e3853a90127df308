"""What a simulator says of grasps."""
