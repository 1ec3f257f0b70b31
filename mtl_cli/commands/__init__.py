"""Commands that take a run folder or a sweep: one module each, with ``main``. They know no Hydra."""
