"""The processes of a run: pools, workers, validators, devices, and what their failures mean."""
