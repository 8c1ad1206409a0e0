"""Figures of speed against plain tools on the same machine, in the same run: ``python -m tests.bench`` with a Binder that is up."""
