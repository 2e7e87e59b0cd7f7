"""The forwarders that bench/forward measures: how each is found and started. All of them run in the foreground as
children of ours, listen on 127.0.0.1, forward to 127.0.0.1, keep their files in a folder of their own, and log nothing
that they need not."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from programs import BIN, LIBC, PATIENCE, Failure, prepare_child, run_time

SEARCH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
NGINX_MODULE = "/usr/lib/nginx/modules/ngx_stream_module.so"
CONNECTIONS = 4000  # what those are told that want to know; each takes up to six descriptors


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text.rstrip() + "\n")
    return path


def haproxy(options=""):
    def command(program, port, remote, folder):
        return [program, "-db", "-f", write(folder, "haproxy.cfg", f"""
            global
                nbthread 1
                maxconn {min(CONNECTIONS, connections_allowed())}
            defaults
                mode tcp
                timeout connect 10s
                timeout client 1h
                timeout server 1h
                {options}
            frontend in
                bind 127.0.0.1:{port}
                default_backend out
            backend out
                server one 127.0.0.1:{remote}
            """)]
    return command


def connections_allowed():
    return max(16, (os.sysconf("SC_OPEN_MAX") - 200) // 5)


def nginx(program, port, remote, folder):
    module = f"load_module {NGINX_MODULE};" if os.path.exists(NGINX_MODULE) else ""
    os.mkdir(os.path.join(folder, "logs"))
    return [program, "-p", folder, "-e", "stderr", "-c", write(folder, "nginx.conf", f"""
        {module}
        daemon off;
        master_process off;
        pid {folder}/pid;
        error_log stderr crit;
        events {{ worker_connections {min(3 * CONNECTIONS, os.sysconf("SC_OPEN_MAX") - 100)}; }}
        stream {{
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                proxy_pass 127.0.0.1:{remote};
                proxy_timeout 1h;
            }}
        }}
        """)]


def rinetd(program, port, remote, folder):
    return [program, "-f", "-c", write(folder, "rinetd.conf", f"127.0.0.1 {port} 127.0.0.1 {remote}")]


def socat(program, port, remote, folder):
    return [program, f"TCP4-LISTEN:{port},bind=127.0.0.1,backlog=4096,fork,nodelay", f"TCP4:127.0.0.1:{remote},nodelay"]


def redir(program, port, remote, folder):
    return [program, "-n", "-l", "none", f"127.0.0.1:{port}", f"127.0.0.1:{remote}"]


def bare(how):
    return lambda program, port, remote, folder: [program, how, str(remote)]


def portforward(*options):
    def command(program, port, remote, folder):
        return [program, *options, "-l", "127.0.0.1", "-p", str(port), "-r", "127.0.0.1", "-P", str(remote)]
    return command


class Kind:
    """A row: `command(program, port, remote, folder)` runs it. Ours come from $BIN, the others from Debian's `package`.
    `forks`: a process for each connection."""

    def __init__(self, program, command, package=None, forks=False, needs=None):
        self.command, self.package, self.forks = command, package, forks
        self.program = shutil.which(program, path=SEARCH if package else BIN)
        self.missing = None
        if not self.program:
            self.missing = f"{program} not found" if package else f"{program} not built (`make bench-forward` does it)"
        elif needs:
            self.missing = needs(self.program)


def without_stream(program):
    """nginx's stream is a module, or built in."""
    options = subprocess.run([program, "-V"], stderr=subprocess.PIPE, text=True, check=False).stderr
    if os.path.exists(NGINX_MODULE) or re.search(r"--with-stream(\s|$)", options):
        return None
    return f"{NGINX_MODULE} not found"


def without_data_path(program):
    text = subprocess.run([program, "--help"], stdout=subprocess.PIPE, text=True, check=False).stdout
    return None if "data-path" in text else "this portforward has no --data-path"


def from_template(template):
    """A forwarder of the user's, as words with {port} and {remote} in them."""
    words = template.split()

    def command(program, port, remote, folder):
        rest = [word.replace("{port}", str(port)).replace("{remote}", str(remote)) for word in words[1:]]
        return [program, *rest]
    return Kind(words[0], command, package="none: it was given with --add")


def all_kinds():
    splice = "option splice-request\n option splice-response"
    return {
        "bare-copy": Kind("forward_bare", bare("copy")),
        "bare-splice": Kind("forward_bare", bare("splice")),
        "portforward": Kind("portforward", portforward()),
        "portforward-copy": Kind("portforward", portforward("--data-path", "copy"), needs=without_data_path),
        "portforward-splice": Kind("portforward", portforward("--data-path", "splice"), needs=without_data_path),
        "haproxy": Kind("haproxy", haproxy(), "haproxy"),
        "haproxy-splice": Kind("haproxy", haproxy(splice), "haproxy"),
        "nginx": Kind("nginx", nginx, "nginx, libnginx-mod-stream", needs=without_stream),
        "rinetd": Kind("rinetd", rinetd, "rinetd"),
        "socat": Kind("socat", socat, "socat", forks=True),
        "redir": Kind("redir", redir, "redir", forks=True),
    }


# -- A running one ----------------------------------------------------------------------------------------------------


def session(leader):
    """The processes of a session, as (pid, parent, whether it has ended)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                state, parent, _, number = file.read().rpartition(")")[2].split()[:4]
                if int(number) == leader:
                    found.append((int(name), int(parent), state == "Z"))
    return found


def ended_children(pid):
    """Seconds of processor time of those that it has waited for, in the kernel's coarse ticks."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def listening_port(pid):
    """The TCP port that a process listens on, or None."""
    inodes = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(f"/proc/{pid}/fd/{number}"))
    with open(f"/proc/{pid}/net/tcp") as file:
        for line in file.readlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                return int(words[1].partition(":")[2], 16)
    return None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def field(pid, file, name):
    """A number of kB."""
    with open(f"/proc/{pid}/{file}") as text:
        return int(re.search(rf"^{name}:\s+(\d+) kB", text.read(), re.M)[1])


class Forwarder:
    """One of them, running in a session of its own, that listens on `port`. Leaving its `with` kills all of it.
    `tool` is a command that runs it."""

    def __init__(self, kind, remote, processor=None, tool=(), pass_fds=()):
        LIBC.prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: children that lose their parent become ours
        self.folder = tempfile.mkdtemp(prefix="bench-forward-")
        self.process = None
        self.buried = 0.0  # seconds of processor time of those of them that ended
        try:
            self.command = [*tool, *kind.command(kind.program, free_port(), remote, self.folder)]
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=pass_fds, start_new_session=True, preexec_fn=lambda: prepare_child(processor))
            self.port = self.wait_for_port()
        except BaseException:
            self.__exit__()
            raise

    def wait_for_port(self):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failure(f"does not start: {' '.join(self.command)}: {self.last_words()}")
            with contextlib.suppress(OSError):
                port = listening_port(self.process.pid)
                if port:
                    return port
            time.sleep(0.01)
        raise Failure(f"does not listen: {' '.join(self.command)}")

    def last_words(self):
        """What it says when it is started again: elsewhere its stderr is nobody's."""
        try:
            again = subprocess.run(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=5,
                                   stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "no idea why"
        return (again.stderr.strip().splitlines() or ["it says nothing"])[-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-self.process.pid, 0)
        shutil.rmtree(self.folder, ignore_errors=True)

    def processes(self):
        """Those that run. What orphans of it took that have ended is added to `buried`."""
        if self.process.poll() is not None:
            raise Failure(f"it ended: {' '.join(self.command)}")
        running = []
        for pid, parent, ended in session(self.process.pid):
            if ended and parent == os.getpid():
                usage = os.wait4(pid, 0)[2]
                self.buried += usage.ru_utime + usage.ru_stime
            elif not ended:
                running.append(pid)
        return running

    def cpu(self):
        """Seconds of processor time, of all its processes, those that ended included."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it ended just now: whoever waits for it will have it
                total += run_time(pid) + ended_children(pid)
        return total + self.buried

    def memory(self):
        """kB: what its processes use, shared pages divided by their users."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError, TypeError):  # it ended just now
                total += field(pid, "smaps_rollup", "Pss")
        return total

    def peak(self):
        """kB that were resident at most, or None: of many processes the kernel does not know it."""
        return field(self.process.pid, "status", "VmHWM") if len(self.processes()) == 1 else None

    def alone(self):
        """Waits until the processes of its connections are gone."""
        deadline = time.monotonic() + PATIENCE
        while len(self.processes()) > 1:
            if time.monotonic() > deadline:
                raise Failure("processes of closed connections stay")
            time.sleep(0.01)

    def end(self):
        """Ends it gently, so that a tool that runs it can write what it found."""
        self.alone()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure("does not end of SIGTERM") from None
