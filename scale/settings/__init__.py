"""The settings of a run: their schema, ranges, free forms, objects, filters and fingerprints."""
