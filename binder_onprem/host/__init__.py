"""This machine: what `up`, `down`, `check` and `clean` look at, write, start and take away."""
