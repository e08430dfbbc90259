"""Two hosts on one machine: network namespaces joined by a cable of the kernel's (veth), and MPI between them over TCP.

    python benchmarks/two_hosts.py [--gbit 1] [--ranks 2] program.py arguments...

Half of the ranks run in each namespace, which has a host name of its own; they can't see each other's memory. At the end, how
many bytes went through the cable. Needs root, Linux with iproute2 and util-linux, mpi4py and MPICH; --gbit needs tc.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESSES = "10.77.0.1", "10.77.0.2"
# hydra starts ranks on other hosts by ssh; this takes its place: [-x] host command...
SSH = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
shift
exec ip netns exec {namespace} unshare --uts sh -c "hostname {namespace}; $*"
"""
BURST, LATENCY = "256kb", "50ms"  # of the throttle


class NoHostsError(RuntimeError):
    """There can't be two hosts here; the text says why."""


@contextmanager
def hosts(gbit: float | None = None) -> Iterator[list[str]]:
    """Inside the block there are two namespaces; their names. gbit: how fast the cable is, in 10^9 bits a second each way.

    NoHostsError: the machine does not let us.
    """
    names = [f"minidl{os.getpid()}{end}" for end in "ab"]
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth0", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "veth0")
            for link in ("lo", "veth0"):
                _ip("-n", name, "link", "set", link, "up")
            if gbit is not None:
                shape = ["tbf", "rate", f"{gbit * 1e3:g}mbit", "burst", BURST, "latency", LATENCY]
                _run(["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "veth0", "root", *shape])
        for name in names:
            _carrier(name)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def start(names: list[str], ranks: int, command: list[str], **settings: object) -> "subprocess.CompletedProcess[str]":
    """Run a command by ranks in both namespaces, half of them in each; settings are subprocess.run's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    mpiexec = shutil.which("mpiexec", path=path)
    if mpiexec is None:
        raise NoHostsError('mpiexec is not there: pip install ".[mpi]"')
    with tempfile.TemporaryDirectory() as folder:
        ssh = Path(folder, "ssh")
        ssh.write_text(SSH.format(namespace=names[1]))
        ssh.chmod(0o700)
        where = ["-hosts", ",".join(ADDRESSES), "-ppn", str(ranks // 2), "-iface", "veth0"]
        launch = [mpiexec, *where, "-launcher", "ssh", "-launcher-exec", str(ssh), "-n", str(ranks), *command]
        inside = f"hostname {names[0]}; exec {shlex.join(launch)}"
        # without it UCX sees that all ranks have one kernel, and copies memory; or takes the loopback for a way out
        only_tcp = {**os.environ, "UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "veth0"}
        return subprocess.run(
            ["ip", "netns", "exec", names[0], "unshare", "--uts", "sh", "-c", inside],
            text=True,
            env=only_tcp,
            **settings,  # type: ignore[call-overload]
        )


def crossed(names: list[str]) -> int:
    """How many bytes have left both ends of the cable."""
    return sum(int(_run(["ip", "netns", "exec", name, "cat", "/sys/class/net/veth0/statistics/tx_bytes"])) for name in names)


def _carrier(name: str) -> None:
    """Wait until the kernel says that the cable's end is connected, up to a second late: UCX passes over one that is not."""
    until = time.monotonic() + 10
    while "state UP" not in _run(["ip", "-n", name, "link", "show", "veth0"]):
        if time.monotonic() > until:
            raise NoHostsError(f"the cable's end in {name} stays unconnected")
        time.sleep(0.01)


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError as error:
        raise NoHostsError(f"{command[0]} is not there") from error
    except subprocess.CalledProcessError as error:
        raise NoHostsError(f"{shlex.join(command)}: {error.stderr.strip()}") from error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gbit", type=float, help="how fast the cable is, each way; default as fast as the kernel can")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("program", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    try:
        with hosts(args.gbit) as names:
            done = start(names, args.ranks, [sys.executable, *args.program])
            print(f"{crossed(names):,} bytes crossed")
    except NoHostsError as error:
        parser.exit(2, f"two_hosts.py: error: {error}\n")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
