"""Runs the Autobahn TestSuite against our servers and clients and judges its reports.

Usage: run.py [server] [client] [server-threads] [client-threads]      (roles of wsproto_fast, at the same time; by
                                                                        default those of the asyncio adapter)

``AUTOBAHN_CASES``    comma-separated patterns of cases, such as ``1.*,6.4.*``; all by default
``AUTOBAHN_TIMEOUT``  seconds for one role; 1800 by default
``PYTHON27``          the CPython 2.7 that the suite needs, if it is neither on PATH nor under pyenv
``CI=true``           a missing CPython 2.7 is a failure, not a reason to skip

Every case must be OK or INFORMATIONAL. NON-STRICT passes only where it says that the connection was failed before the
application had answered a message right in front of the illegal frame (``RACES``); never in group 6.4, where it says
that invalid UTF-8 was noticed late. UNIMPLEMENTED fails.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE.parent.parent / "build" / "autobahn"
BOOTSTRAP = "virtualenv==20.15.1"  # the last series that makes environments for Python 2.7 from Python 2.7
AGENT = "wsproto_fast"
ROLES = {"server", "client", "server-threads", "client-threads"}
ACCEPTED = {"OK", "INFORMATIONAL"}
#: A text message, then a frame that must fail the connection, often in one read: the message is delivered, but the
#: connection is closed before a task can echo it.
RACES = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}


def outcome(case: str, result: dict[str, object]) -> str:
    """OK, INFO, RACE (an accepted NON-STRICT), or "other"."""
    found = {str(result["behavior"]), str(result["behaviorClose"])}
    if case in RACES and "NON-STRICT" in found:
        return "RACE" if found <= {*ACCEPTED, "NON-STRICT"} else "other"
    return "other" if found - ACCEPTED else "INFO" if "INFORMATIONAL" in found else "OK"


CASES = [case.strip() for case in os.environ.get("AUTOBAHN_CASES", "*").split(",") if case.strip()]
TIMEOUT = float(os.environ.get("AUTOBAHN_TIMEOUT", "1800"))


class Trouble(Exception):
    """The suite could not be run, as opposed to a case that failed."""


# The suite and its Python 2.7


def find_python27() -> str | None:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [
        os.environ.get("PYTHON27"),
        shutil.which("python2.7"),
        shutil.which("python2"),
        *(str(path) for path in sorted(pyenv.glob("versions/2.7*/bin/python"), reverse=True)),
    ]
    probe = "import sys; sys.exit(sys.version_info[:2] != (2, 7) or not hasattr(sys, 'maxint'))"
    for candidate in filter(None, candidates):
        try:
            subprocess.run([candidate, "-c", probe], check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.SubprocessError):
            continue  # not there, or a pyenv shim without a version behind it
        return candidate
    return None


def run_logged(name: str, *command: str | Path, **environment: str) -> None:
    """Run one step of the set-up, its output in a log that is shown if it fails."""
    log = WORK / f"{name}.log"
    with log.open("wb") as output:
        code = subprocess.run(
            command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code:
        raise Trouble(f"{name} failed:\n{log.read_text(errors='replace')[-3000:]}")


def install(python27: str) -> Path:
    """Path of an installed wstest."""
    requirements = HERE / "requirements.txt"
    environment = WORK / "venv"
    wstest = environment / "bin" / "wstest"
    stamp = environment / "requirements.txt"
    if wstest.exists() and stamp.exists() and stamp.read_text() == requirements.read_text():
        return wstest
    print(f"Installing the Autobahn TestSuite for {python27} ...", flush=True)
    shutil.rmtree(environment, ignore_errors=True)
    WORK.mkdir(parents=True, exist_ok=True)
    bootstrap = WORK / "bootstrap"
    if not bootstrap.exists():
        run_logged("bootstrap", python27, "-m", "pip", "install", "--target", bootstrap, BOOTSTRAP)
    run_logged("virtualenv", python27, "-m", "virtualenv", environment, PYTHONPATH=str(bootstrap))
    run_logged("install", environment / "bin" / "pip", "install", "-r", requirements)
    shutil.copy(requirements, stamp)
    return wstest


# One role


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise Trouble("the suite's server did not start")


class Role:
    """Our side of the suite: "server" (against fuzzingclient) or "client" (against fuzzingserver), perhaps with
    threads."""

    #: Number of cases that the suite's server offered to our client.
    expected: int | None = None

    def __init__(self, name: str, wstest: Path) -> None:
        self.name = name
        self.script = HERE / f"echo_{name.replace('-', '_')}.py"
        self.wstest = wstest
        self.folder = WORK / name
        self.seconds = 0.0
        self.results: dict[str, dict[str, object]] = {}
        self.failures: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        start = time.monotonic()
        try:
            self.run_as_server() if self.name.startswith("server") else self.run_as_client()
            self.judge()
        except (Trouble, OSError, ValueError, subprocess.SubprocessError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
        self.seconds = time.monotonic() - start

    def start(self, log: str, *command: str | Path, pipe: bool = False) -> subprocess.Popen[bytes]:
        with (self.folder / f"{log}.log").open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else output,
                stderr=output,
            )
        self.processes.append(process)
        return process

    def start_wstest(self, mode: str, **spec: object) -> subprocess.Popen[bytes]:
        path = self.folder / "spec.json"
        common = {"outdir": str(self.folder), "cases": CASES, "exclude-cases": [], "exclude-agent-cases": {}}
        path.write_text(json.dumps({**common, **spec}))
        return self.start("wstest", self.wstest, "-m", mode, "-s", path)

    def run_as_server(self) -> None:
        server = self.start("server", sys.executable, self.script, pipe=True)
        assert server.stdout is not None
        port = server.stdout.readline().strip().decode()
        if not port:
            raise Trouble(f"{self.script.name} did not start:\n{self.log('server')}")
        servers = [{"agent": AGENT, "url": f"ws://127.0.0.1:{port}"}]
        client = self.start_wstest("fuzzingclient", servers=servers)
        if client.wait(TIMEOUT) != 0:
            raise Trouble(f"wstest failed:\n{self.log('wstest')}")
        if server.poll() is not None:
            raise Trouble(f"{self.script.name} ended:\n{self.log('server')}")

    def run_as_client(self) -> None:
        url = f"ws://127.0.0.1:{free_port()}"
        server = self.start_wstest("fuzzingserver", url=url, webport=0)
        wait_for_port(int(url.rpartition(":")[2]), server)
        client = self.start("client", sys.executable, self.script, url, pipe=True)
        output, _ = client.communicate(timeout=TIMEOUT)
        if client.returncode != 0:
            raise Trouble(f"{self.script.name} failed:\n{self.log('client')}")
        self.expected = int(output)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def judge(self) -> None:
        index = self.folder / "index.json"
        if not index.exists():
            raise Trouble(f"the suite wrote no report:\n{self.log('wstest')}")
        self.results = json.loads(index.read_text()).get(AGENT, {})
        for pattern in CASES:
            if not any(fnmatchcase(case, pattern) for case in self.results):
                self.failures.append(f"no case {pattern} was run")
        if self.expected is not None and self.expected != len(self.results):
            self.failures.append(f"{self.expected} cases were offered, {len(self.results)} reported")
            self.failures.append(self.log("client"))
        for case, result in sorted(self.results.items(), key=lambda item: case_key(item[0])):
            if outcome(case, result) == "other":
                report = self.folder / str(result["reportfile"]).replace(".json", ".html")
                self.failures.append(
                    f"case {case}: {result['behavior']}, closing {result['behaviorClose']}; see {report}"
                )


# The summary


def case_key(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


def print_summary(roles: list[Role]) -> None:
    print(f"\n{'role':<16}{'group':<8}{'cases':>6}{'OK':>6}{'INFO':>6}{'RACE':>6}{'other':>7}{'seconds':>9}")
    for role in roles:
        groups: dict[str, Counter[str]] = {}
        for case, result in sorted(role.results.items(), key=lambda item: case_key(item[0])):
            for group in (case.partition(".")[0], "all"):
                counter = groups.setdefault(group, Counter())
                counter[outcome(case, result)] += 1
                counter["ms"] += int(str(result["duration"]))
        for group in sorted(groups, key=lambda name: (name == "all", name.zfill(2))):
            counter = groups[group]
            cases = counter["OK"] + counter["INFO"] + counter["RACE"] + counter["other"]
            seconds = role.seconds if group == "all" else counter["ms"] / 1000
            print(
                f"{role.name:<16}{group:<8}{cases:>6}{counter['OK']:>6}{counter['INFO']:>6}{counter['RACE']:>6}"
                f"{counter['other']:>7}{seconds:>9.1f}"
            )
    for role in roles:
        for failure in role.failures:
            print(f"FAILED as {role.name}: {failure}")


def main() -> int:
    names = sys.argv[1:] or ["server", "client"]
    if not ROLES.issuperset(names):
        print(__doc__)
        return 2
    python27 = find_python27()
    if python27 is None:
        print("Autobahn skipped: its suite needs CPython 2.7, which is neither on PATH nor under pyenv (or PYTHON27).")
        return 1 if os.environ.get("CI") == "true" else 0
    try:
        wstest = install(python27)
    except Trouble as error:
        print(error)
        return 1
    roles = [Role(name, wstest) for name in names]
    threads = [threading.Thread(target=role.run, daemon=True) for role in roles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print_summary(roles)
    return 1 if any(role.failures or not role.results for role in roles) else 0


if __name__ == "__main__":
    sys.exit(main())
