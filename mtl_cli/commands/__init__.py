"""Commands that take a finished run: one module each, with ``main``. They know no Hydra."""
