"""The grasp file: its schema, shards, final files, and how they are read."""
