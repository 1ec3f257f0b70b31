"""Commands that take a run folder or a sweep: no Hydra."""
