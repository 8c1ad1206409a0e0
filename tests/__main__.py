"""Every test, two parts of them at a time on two cores: ``python -m tests``, as `make test` does.

Most tests wait as often as they calculate: for a container, a pod, an answer by SSH. A part is one pytest with hosts, Binders and a file of
coverage of its own. Its lines come as they are written, after its name; what failed is repeated at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
AT_ONCE: Final = 1 + min(os.cpu_count() or 1, 6) // 2
NOTHING: Final = 5
"""What pytest ends with when it has found no test."""

APART: Final = ("cluster/test_bundle.py", "cluster/test_firewall.py", "cluster/test_servers.py")

PARTS: Final[dict[str, tuple[str, ...]]] = {
    "e2e": ("e2e",),
    "others": (),
    "playbooks": ("cluster/test_playbooks.py",),
    "cluster": ("cluster", "--ignore=tests/cluster/test_playbooks.py", *(f"--ignore=tests/{file}" for file in APART)),
    "servers": APART,
    "real": ("real",),
}
"""Part → what is below ``tests``; ``others`` are all that no part names. Kubernetes is built beside the first ones, which do not need it."""

KUBERNETES: Final = ("nice", "-n", "10", sys.executable, "-m", "tests.cluster", "build")
"""Once in a machine's life. What prevents it is told by the tests."""


@dataclass
class Part:
    """Tests that one process runs."""

    name: str
    words: tuple[str, ...]
    coverage: Path
    code: int | None = None
    said: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None
    over: bool = False

    def run(self) -> None:
        """Until the end."""
        began = time.monotonic()
        self.code = self._command(sys.executable, "-m", "pytest", "--cov", "--cov-branch", "--cov-report=", *self.words)
        self._say(f"ended after {(time.monotonic() - began) / 60:.0f} min")

    def build(self) -> None:
        """Make what tests need, in place of running any."""
        self._command(*self.words)

    def stop(self) -> None:
        """End it in order: what it has made is taken away."""
        self.over = True
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def _command(self, *words: str) -> int:
        if self.over:
            return signal.SIGINT
        env = {**os.environ, "COVERAGE_FILE": str(self.coverage), "PYTHONUNBUFFERED": "1"}
        # A session of its own: Ctrl-C comes once, by us.
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(words, cwd=HERE.parent, env=env, text=True, errors="replace", start_new_session=True, **streams) as self.process:
            for line in self.process.stdout or ():
                self._say(line.rstrip("\n"))
        return self.process.returncode

    def _say(self, line: str) -> None:
        self.said.append(line)
        sys.stdout.write(f"{self.name:9} │ {line}\n")
        sys.stdout.flush()

    @property
    def verdict(self) -> list[str]:
        """What failed and why, and the count; a reason that many share is given once, for the end of a log is often all that is kept of it."""
        reasons: set[str] = set()
        lines = []
        summary = max((number for number, line in enumerate(self.said) if "short test summary info" in line), default=0)
        for line in self.said[summary:]:
            if line.startswith(("FAILED", "ERROR")):
                test, _, reason = line.partition(" - ")
                lines.append(test if reason in reasons else f"{test} - {reason[:600]}")
                reasons.add(reason)
        return [*lines, *[line for line in self.said if line.startswith("==")][-1:]]


def parts(folder: Path) -> list[Part]:
    """All of them; data of coverage come to `folder`."""
    named = {word.partition("/")[0] for words in PARTS.values() for word in words}
    others = sorted(path.name for path in HERE.iterdir() if path.name not in named and any(path.glob("test_*.py")))
    each = PARTS | {"others": tuple(others)}
    found = []
    for name, words in each.items():
        below = tuple(word if word.startswith("-") else f"tests/{word}" for word in words)
        found.append(Part(name, below, folder / f"coverage.{name}"))
    return found


def main() -> int:
    """Run all; 0 when all have passed."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(AT_ONCE) as pool, ThreadPoolExecutor(1) as beside:
        every, kubernetes = parts(Path(folder)), Part("build", KUBERNETES, Path(os.devnull))

        def stop(*_: object) -> None:
            for part in (*every, kubernetes):
                part.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        beside.submit(kubernetes.build)
        for done in [pool.submit(part.run) for part in every]:
            done.result()
        _report([part.coverage for part in every])
    for part in every:
        sys.stdout.writelines(f"{part.name:9} │ {line}\n" for line in part.verdict)
    return int(any(part.code not in (0, NOTHING) for part in every))


def _report(data: list[Path]) -> None:
    coverage = (sys.executable, "-m", "coverage")
    env = {**os.environ, "COVERAGE_FILE": str(data[0].parent / "coverage")}
    subprocess.run([*coverage, "combine", "--quiet", *map(str, filter(Path.exists, data))], cwd=HERE.parent, env=env, check=False)
    subprocess.run([*coverage, "report"], cwd=HERE.parent, env=env, check=False)


if __name__ == "__main__":
    raise SystemExit(main())
