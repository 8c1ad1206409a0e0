#!/bin/sh
# A login shell resets the path; the environment stays first in it.
PATH="/srv/venv/bin:$PATH"
