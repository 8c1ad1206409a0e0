#!/usr/bin/env python3
"""Inside a sandbox without network: a proxy on loopback that passes everything on to the gate's socket, around one command.

``forward.py SOCKET -- COMMAND…`` listens, points http_proxy and friends at itself, runs the command and exits with its code.
``forward.py HOST PORT`` is what git and ssh call for hosts that are not spoken to by HTTP: standard input and output become a tunnel.

Mounted into images that have some Python from 3.9 on and nothing of ours, so: standard library only, no asyncio and no subprocess (both take
longer to import than everything here takes to run). It may be PID 1: it reaps whatever is orphaned and passes signals on.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
import sys
import threading

PORT = 3128
CHUNK = 262144
BACKLOG = 512
CLIENTS = 512
GATE_VARIABLE = "BINDER_GATE_SOCKET"
DIRECT_VARIABLE = "BINDER_DIRECT"
"""What the command reaches without the gate, where that is not all of its loopback: a mirror may lie on the host's."""
NOT_FOUND, NOT_EXECUTABLE, SIGNALLED = 127, 126, 128
PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Pipe:
    """Bytes on their way from one socket to another; holds one chunk at the most."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.waiting = b""
        self.ended = False

    def move(self) -> None:
        """Move what can be moved without waiting. Raises OSError when one side is gone."""
        try:
            if not self.waiting and not self.ended:
                self.waiting = self.source.recv(CHUNK)
                self.ended = not self.waiting
                if self.ended:
                    self.target.shutdown(socket.SHUT_WR)
            if self.waiting:
                sent = self.target.send(self.waiting)
                self.waiting = self.waiting[sent:]
        except (BlockingIOError, InterruptedError):
            pass


class Pair:
    """A client on loopback and its connection to the gate."""

    def __init__(self, client: socket.socket, gate: socket.socket) -> None:
        self.sockets = (client, gate)
        self.pipes = (Pipe(client, gate), Pipe(gate, client))
        for end in self.sockets:
            end.setblocking(False)  # noqa: FBT003 - its only parameter

    def events(self, end: socket.socket) -> int:
        """What to wait for on one of the two."""
        mask = 0
        for pipe in self.pipes:
            if pipe.source is end and not pipe.waiting and not pipe.ended:
                mask |= selectors.EVENT_READ
            if pipe.target is end and pipe.waiting:
                mask |= selectors.EVENT_WRITE
        return mask

    def step(self) -> bool:
        """Move bytes; False once both directions have ended or one side is gone."""
        try:
            for pipe in self.pipes:
                pipe.move()
        except OSError:
            return False
        return not all(pipe.ended and not pipe.waiting for pipe in self.pipes)


class Forwarder:
    """Takes connections on loopback and passes them to the gate, all in one thread."""

    def __init__(self, gate: str) -> None:
        self.gate = gate
        self.selector = selectors.DefaultSelector()
        self.pairs: set[Pair] = set()
        self.listener = listen()
        self.port: int = self.listener.getsockname()[1]
        self.selector.register(self.listener, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve for ever."""
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    self.accept()
                elif key.data in self.pairs:
                    self.step(key.data)

    def accept(self) -> None:
        """Take one client; without a gate it is closed at once."""
        try:
            client, _ = self.listener.accept()
        except OSError:
            return
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if len(self.pairs) >= CLIENTS:
                raise OSError("too many clients")
            gate.connect(self.gate)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            client.close()
            gate.close()
            return
        pair = Pair(client, gate)
        self.pairs.add(pair)
        self.watch(pair)

    def step(self, pair: Pair) -> None:
        """Something happened on one of the two."""
        if pair.step():
            self.watch(pair)
            return
        self.pairs.discard(pair)
        for end in pair.sockets:
            if end in self.selector.get_map():
                self.selector.unregister(end)
            end.close()

    def watch(self, pair: Pair) -> None:
        """Wait for what the two can do next."""
        known = self.selector.get_map()
        for end in pair.sockets:
            mask = pair.events(end)
            if mask and end in known:
                self.selector.modify(end, mask, pair)
            elif mask:
                self.selector.register(end, mask, pair)
            elif end in known:
                self.selector.unregister(end)


def listen() -> socket.socket:
    """Listen on the usual port of loopback, or on any if that is taken."""
    for port in (PORT, 0):
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setblocking(False)  # noqa: FBT003 - its only parameter
        try:
            server.bind(("127.0.0.1", port))
            server.listen(BACKLOG)
        except OSError:
            server.close()
            if not port:
                raise
        else:
            return server
    raise AssertionError("unreachable")


def environment(gate: str, port: int) -> dict[str, str]:
    """The command's environment: ours, with the proxy for everything that can be told of one."""
    env = dict(os.environ)
    url = f"http://127.0.0.1:{port}"
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy"):
        env[name] = env[name.upper()] = url
    env["no_proxy"] = env["NO_PROXY"] = env.pop(DIRECT_VARIABLE, "localhost,127.0.0.1,::1")
    env[GATE_VARIABLE] = gate
    tunnel = tunnel_command()
    count = int(env.get("GIT_CONFIG_COUNT") or 0)
    env[f"GIT_CONFIG_KEY_{count}"], env[f"GIT_CONFIG_VALUE_{count}"] = "core.gitproxy", tunnel
    env["GIT_CONFIG_COUNT"] = str(count + 1)
    env["GIT_SSH_COMMAND"] = f"ssh -o BatchMode=yes -o ProxyCommand='{tunnel} %h %p'"
    return env


def tunnel_command() -> str:
    """One word that git can call with host and port: this file, or a script beside the temporary files if it may not be executed."""
    here = os.path.abspath(__file__)  # noqa: PTH100 - pathlib takes longer to import than all of this
    if os.access(here, os.X_OK):
        return here
    script = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"binder-tunnel-{os.getpid()}")  # noqa: PTH118, S108 - as above; a sandbox of our own
    try:
        with os.fdopen(os.open(script, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755), "w") as file:
            file.write(f'#!/bin/sh\nexec "{sys.executable}" "{here}" "$@"\n')
    except OSError:
        return here
    return script


def around(gate: str, command: list[str]) -> int:
    """Run the command with the forwarder beside it; its exit code."""
    forwarder = Forwarder(gate)
    env = environment(gate, forwarder.port)
    threading.Thread(target=forwarder.run, daemon=True).start()
    # Signals that come before the command is there wait for it: a SIGTERM in between must not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        child = os.posix_spawnp(command[0], command, env, setpgroup=0, setsigmask=(), setsigdef=(*PASSED_ON, signal.SIGPIPE))
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    for number in PASSED_ON:
        signal.signal(number, lambda caught, _frame: pass_on(child, caught))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    while True:
        pid, status = os.waitpid(-1, 0)  # as PID 1 we get every orphan of the sandbox; each must be reaped
        if pid == child:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else SIGNALLED + os.WTERMSIG(status)


def pass_on(group: int, number: int) -> None:
    """Give a signal to the command and what it started."""
    try:  # noqa: SIM105 - contextlib takes longer to import
        os.killpg(group, number)
    except ProcessLookupError:
        pass  # it has just ended; waitpid is about to say so


def tunnel(gate: str, host: str, port: str) -> int:
    """Standard input and output become a connection to host and port."""
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.connect(gate)
        end.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n") and len(head) < CHUNK:
            byte = end.recv(1)  # by single bytes: what follows the head is the tunnel's
            if not byte:
                break
            head += byte
        if head.split(b" ")[1:2] != [b"200"]:
            answer = head.partition(b"\r\n")[0].decode("ascii", "replace").replace("HTTP/1.1 ", "")
            sys.stderr.write(f"{target}: {answer or 'no answer from the gate'}\n")
            return 1
        return pump(end)


def pump(end: socket.socket) -> int:
    """Pass bytes between standard input and output and a socket until the socket ends."""
    sources = [0, end.fileno()]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if end.fileno() in ready:
            data = end.recv(CHUNK)
            if not data:
                return 0
            while data:
                data = data[os.write(1, data) :]
        if 0 in ready:
            data = os.read(0, CHUNK)
            if data:
                end.sendall(data)
            else:
                sources.remove(0)
                end.shutdown(socket.SHUT_WR)


def main(words: list[str]) -> int:
    """See the module's docstring."""
    if len(words) > 2 and words[1] == "--":  # noqa: PLR2004 - socket, dashes, command
        return around(words[0], words[2:])
    if len(words) == 2 and GATE_VARIABLE in os.environ:  # noqa: PLR2004 - host, port
        return tunnel(os.environ[GATE_VARIABLE], *words)
    sys.stderr.write("usage: forward.py SOCKET -- COMMAND… | forward.py HOST PORT\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
