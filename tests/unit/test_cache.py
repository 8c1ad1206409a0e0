"""The cache of looked-up refs: coalescing, freshness, stale answers, bounds; with a clock that only the test moves."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from binder_onprem.errors import BinderError, ProviderUnavailable, RefNotFound
from binder_onprem.model import RepoSpec, ResolvedRepo
from binder_onprem.providers.cache import SIZE, Cached

SHA = "0123456789abcdef0123456789abcdef01234567"


def spec(ref: str = "main", path: str = "a/b") -> RepoSpec:
    return RepoSpec("gh", f"{path}/{ref}", f"https://github.com/{path}", ref, "a-b")


@dataclass
class Upstream:
    """A provider that does what it is told."""

    prefix: str = "gh"
    name: str = "GitHub"
    display_config: dict[str, Any] = field(default_factory=dict)
    calls: int = 0
    answer: Callable[[], Awaitable[None]] | BinderError | None = None
    commits: list[str] = field(default_factory=lambda: [SHA])

    def parse(self, path: str) -> RepoSpec:
        return spec(path)

    async def resolve(self, asked: RepoSpec) -> ResolvedRepo:
        self.calls += 1
        if isinstance(self.answer, BinderError):
            raise self.answer
        if self.answer:
            await self.answer()
        return ResolvedRepo(asked, self.commits[-1], f"a/b/{self.commits[-1]}", asked.url)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def cached(upstream: Upstream, clock: Clock, timeout: float = 15) -> Cached:
    return Cached(upstream, timeout, 60, 3600, clock)


async def test_fresh_answers_cost_no_call() -> None:
    upstream, clock = Upstream(), Clock()
    subject = cached(upstream, clock)
    for _ in range(5):
        await subject.resolve(spec())
    assert upstream.calls == 1
    clock.now += 61
    await subject.resolve(spec())
    assert upstream.calls == 2


async def test_a_full_commit_never_expires() -> None:
    upstream, clock = Upstream(), Clock()
    subject = cached(upstream, clock)
    await subject.resolve(spec(SHA))
    clock.now += 1e9
    await subject.resolve(spec(SHA))
    assert upstream.calls == 1


async def test_equal_requests_at_once_are_one_call_and_a_leaving_waiter_stops_nobody() -> None:
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    upstream = Upstream(answer=wait)
    subject = cached(upstream, Clock())
    waiters = [asyncio.create_task(subject.resolve(spec())) for _ in range(20)]
    other = asyncio.create_task(subject.resolve(spec("dev")))
    await asyncio.sleep(0)
    waiters[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*waiters, other, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(result, ResolvedRepo) for result in results[1:])
    assert upstream.calls == 2


async def test_all_waiters_may_leave() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ProviderUnavailable("down")

    subject = cached(Upstream(answer=fail), Clock())
    waiter = asyncio.create_task(subject.resolve(spec()))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not subject._running


async def test_a_missing_ref_is_believed_for_a_moment() -> None:
    upstream, clock = Upstream(answer=RefNotFound("none")), Clock()
    subject = cached(upstream, clock)
    for _ in range(3):
        with pytest.raises(RefNotFound, match="none"):
            await subject.resolve(spec())
    assert upstream.calls == 1
    clock.now += 11
    upstream.answer = None
    assert (await subject.resolve(spec())).commit == SHA


async def test_an_old_answer_serves_while_the_host_is_down() -> None:
    upstream, clock = Upstream(), Clock()
    subject = cached(upstream, clock)
    await subject.resolve(spec())
    upstream.answer = ProviderUnavailable("down")
    clock.now += 600
    repo = await subject.resolve(spec())
    assert repo.commit == SHA
    assert repo.notice == "The repository's host does not answer; this is the state of 10 minutes ago."
    await subject.resolve(spec())
    assert upstream.calls == 2, "within the back-off nobody asks again"
    clock.now += 3600
    with pytest.raises(ProviderUnavailable, match="down"):
        await subject.resolve(spec())


async def test_a_host_that_comes_back_gives_the_new_commit() -> None:
    upstream, clock = Upstream(), Clock()
    subject = cached(upstream, clock)
    await subject.resolve(spec())
    upstream.answer = ProviderUnavailable("down")
    clock.now += 61
    await subject.resolve(spec())
    upstream.answer, upstream.commits = None, ["f" * 40]
    clock.now += 6
    assert (await subject.resolve(spec())).commit == "f" * 40


async def test_retry_after_is_honoured() -> None:
    upstream, clock = Upstream(answer=ProviderUnavailable("slow down", retry_after=30)), Clock()
    subject = cached(upstream, clock)
    for left in (30, 25, 20):
        with pytest.raises(ProviderUnavailable) as caught:
            await subject.resolve(spec())
        assert caught.value.retry_after == left
        clock.now += 5
    assert upstream.calls == 1
    clock.now += 30
    with pytest.raises(ProviderUnavailable):
        await subject.resolve(spec())
    assert upstream.calls == 2


async def test_a_host_that_never_answers_is_given_up() -> None:
    upstream = Upstream(answer=lambda: asyncio.sleep(3600))
    with pytest.raises(ProviderUnavailable, match=r"did not answer in 0\.02 seconds"):
        await cached(upstream, Clock(), 0.02).resolve(spec())


async def test_it_holds_a_bounded_number() -> None:
    upstream = Upstream()
    subject = cached(upstream, Clock())
    for number in range(SIZE + 10):
        await subject.resolve(spec(f"b{number}"))
    assert len(subject._known) == SIZE
    await subject.resolve(spec(f"b{SIZE + 9}"))
    assert upstream.calls == SIZE + 10
    await subject.resolve(spec("b0"))
    assert upstream.calls == SIZE + 11
