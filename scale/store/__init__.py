"""What a run keeps on the disk: its folder, journal, locks, shards, verdicts and convex pieces."""
