"""Every metric, declared once. BinderHub's names, without its label `repo`: that one is unbounded and tells private repositories' names.

Modules of the logic and the web count; ``/metrics`` prints. Labels take values of fixed small sets only (a provider's name, a builder's, a status).
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

BUILD_TIME = Histogram(
    "binderhub_build_time_seconds",
    "Duration of builds",
    ["status"],
    buckets=(1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, float("inf")),
)
LAUNCH_TIME = Histogram(
    "binderhub_launch_time_seconds",
    "Duration from the click to the session",
    ["status", "retries"],
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, float("inf")),
)
BUILD_COUNT = Counter("binderhub_build_count", "Builds that ended", ["status", "provider"])
LAUNCH_COUNT = Counter("binderhub_launch_count", "Launches that ended", ["status", "provider"])
BUILDS_RUNNING = Gauge("binderhub_inprogress_builds", "Builds that run")
LAUNCHES_RUNNING = Gauge("binderhub_inprogress_launches", "Launches that somebody follows")
GITHUB_REMAINING = Gauge("binderhub_github_rate_limit_remaining", "Requests GitHub still answers in this period; NaN before it was asked")
GITHUB_REMAINING.set(float("nan"))

BUILDER_BUILDS = Gauge("binder_onprem_builder_builds", "Builds that run on each machine that builds", ["builder"])
BUILDER_UP = Gauge("binder_onprem_builder_up", "Whether a machine that builds answered when it was last asked", ["builder"])
BUILDS_QUEUED = Gauge("binder_onprem_builds_queued", "Builds that wait for their turn")
SESSIONS = Gauge("binder_onprem_sessions", "Sessions that exist, ready or starting")
WAITING = Gauge("binder_onprem_launches_waiting", "Launches that wait for a free place")
STREAMS = Gauge("binder_onprem_streams", "Event streams and logs that are open")
REAPED = Counter("binder_onprem_reaped", "Sessions that have ended", ["reason"])
PRUNED = Counter("binder_onprem_pruned_images", "Images deleted to stay within the budget", ["place"])
PASS_TIME = Histogram("binder_onprem_pass_seconds", "Duration of periodic passes", ["name", "status"])
ANSWERS = Counter("binder_onprem_http_answers", "Answers by route and class of status", ["route", "status"])
