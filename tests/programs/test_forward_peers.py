"""portforward between programs that people run behind one, end to end, on copy, splice and auto: curl and nginx, rsync
with its daemon and over ssh, pgbench and PostgreSQL. Each is skipped where it is not installed."""
import filecmp
import getpass
import glob
import os
import random
import shutil
import socket
import subprocess
import tempfile
import unittest

from forward_support import MB, PATHS, Forwarder, ForwardTest, smaller
from support import DEADLINE, free_port, pattern, poll_until

PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"] +
                         sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True))


def program(name):
    return shutil.which(name, path=PLACES)


def needs(*names):
    lack = [name for name in names if not program(name)]
    return unittest.skipIf(lack, "not installed: " + ", ".join(lack))


class PeersTest(ForwardTest):
    def setUp(self):
        super().setUp()
        self.folder = tempfile.mkdtemp(prefix="asyncore-peers-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def write(self, name, content):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb" if isinstance(content, bytes) else "w") as f:
            f.write(content)

    def server(self, command, *failures, **popen):
        """Starts a server, which command(port) is, on a port that may be taken in between: then it ends, and another
        port is tried. Returns the port."""
        for _ in range(5):
            port = free_port()
            process = self.start([str(word) for word in command(port)], **popen)

            def answers():
                if process.process.poll() is not None:
                    return True
                with socket.socket() as s:
                    return s.connect_ex(("127.0.0.1", port)) == 0

            poll_until(answers, "%s answers" % process.command[0])
            if process.process.poll() is None:
                return port
        raise AssertionError("%s: %s" % (process.command, process.errors()))

    def run_peer(self, *command, code=0, **options):
        """Runs a client to its end; its output."""
        result = subprocess.run([program(command[0])] + [str(word) for word in command[1:]], timeout=4 * DEADLINE,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        self.assertEqual(result.returncode, code, (command, result.stdout))
        return result.stdout.decode(errors="backslashreplace")

    def each_path(self, port, check, *ends):
        """check(f) with a forwarder to this port on each data path. `ends`: reasons for which connections may end."""
        for path in PATHS:
            with self.subTest(path=path):
                f = Forwarder(self, path, rule="127.0.0.1 0 127.0.0.1 %s" % port)
                check(f)
                f.gone()
                f.rests()
                f.assert_descriptors_return()
                self.assertEqual(f.program.stop(), 0)
                lines, others = f.lines()
                self.assertEqual(others, [])
                self.assertEqual({line.end for of_one in lines.values() for line in of_one} - set(ends), set(),
                                 f.program.errors()[-2000:])


class Web(PeersTest):
    CONFIGURATION = """
        daemon off; worker_processes 1; pid {0}/pid; error_log stderr; {1}
        events {{ worker_connections 256; }}
        http {{
            access_log off; default_type application/octet-stream;
            client_body_temp_path {0}/t1; proxy_temp_path {0}/t2; fastcgi_temp_path {0}/t3; uwsgi_temp_path {0}/t4;
            scgi_temp_path {0}/t5;
            server {{ listen 127.0.0.1:{2}; root {0}/files; gzip on; gzip_types *; }}
        }}
    """

    def nginx(self, port):
        self.write("conf", self.CONFIGURATION.format(self.folder, "user root;" if os.getuid() == 0 else "", port))
        return [program("nginx"), "-p", self.folder, "-c", self.path("conf"), "-e", "stderr"]

    @needs("nginx", "curl")
    def test_curl_and_nginx(self):
        self.write("files/large", pattern(smaller(64 * MB)))
        for i in range(20):
            self.write("files/%d" % i, pattern(i * i * 1000, seed=i + 1))
        port = self.server(self.nginx)

        def check(f):
            url = "http://127.0.0.1:%d/" % f.address[1]
            large, small = self.path("got-" + f.path), self.path("small-" + f.path)
            os.mkdir(small)
            joins = [self.in_thread(self.run_peer, "curl", "-sSf", "-o", large + str(i), url + "large")
                     for i in range(3)]
            joins.append(self.in_thread(  # one connection for all of them
                self.run_peer, "curl", "-sSf", "--compressed", "-o", small + "/#1", url + "[0-19]"))
            for join in joins:
                join()
            for i in range(3):
                self.assertTrue(filecmp.cmp(large + str(i), self.path("files/large"), shallow=False))
            for i in range(20):
                self.assertTrue(filecmp.cmp(small + "/%d" % i, self.path("files/%d" % i), shallow=False))
            self.assertIn("404", self.run_peer("curl", "-sSf", url + "none", code=22))
            self.run_peer("curl", "-sS", "--max-filesize", "1000", "-o", "/dev/null", url + "large", code=63)
        self.each_path(port, check, "closed", "client-reset")


class Files(PeersTest):
    def tree(self):
        """Files of all sizes, folders and a link."""
        chance = random.Random(1)
        for i in range(60):
            content = pattern(chance.randint(0, 1 << chance.randint(1, 18)), seed=i + 1)
            self.write("from/%d/file %d" % (i % 7, i), content)
        self.write("from/large", pattern(smaller(32 * MB)))
        os.symlink("large", self.path("from/link"))

    def assert_same(self, a, b):
        command = ["diff", "-r", "--no-dereference", a, b]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(result.returncode, 0, result.stdout)

    def there_and_back(self, f, remote, *options):
        """Uploads the tree, changes it, uploads the difference, and gets it back."""
        back = self.path("back-" + f.path)
        for i in range(2):
            self.write("from/large", pattern(smaller(32 * MB) + i, seed=2 - i))
            self.run_peer("rsync", "-a", "--delete", *options, self.path("from") + "/", remote)
            self.run_peer("rsync", "-a", "--delete", *options, remote, back + "/")
            self.assert_same(self.path("from"), back)

    @needs("rsync", "diff")
    def test_rsync_daemon(self):
        self.tree()
        os.mkdir(self.path("store"))
        owner = "uid = root\ngid = root\n" if os.getuid() == 0 else ""
        self.write("conf", "%suse chroot = no\nlog file = /dev/null\n[store]\npath = %s\nread only = no\n" % (
            owner, self.path("store")))
        port = self.server(lambda port: [program("rsync"), "--daemon", "--no-detach", "--address=127.0.0.1", "--port",
                                         port, "--config", self.path("conf")])
        self.each_path(port, lambda f: self.there_and_back(f, "rsync://127.0.0.1:%d/store/" % f.address[1]),
                       "closed", "remote-reset", "client-reset")

    @needs("rsync", "diff", "ssh", "sshd", "ssh-keygen")
    def test_rsync_over_ssh(self):
        if os.getuid() == 0 and not os.path.isdir("/run/sshd"):
            self.skipTest("sshd was not set up here: it needs /run/sshd")
        self.tree()
        for name in ("host", "user"):
            self.run_peer("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.path(name))
        shutil.copy(self.path("user.pub"), self.path("keys"))
        self.write("conf", "HostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPidFile none\n"
                           "ListenAddress 127.0.0.1\nPermitRootLogin yes\n" % (self.path("host"), self.path("keys")))
        port = self.server(lambda port: [program("sshd"), "-D", "-e", "-f", self.path("conf"), "-p", port])

        def check(f):
            shell = ("ssh -F none -p %d -i %s -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
                     "-o BatchMode=yes -o LogLevel=ERROR" % (f.address[1], self.path("user")))
            self.there_and_back(f, "%s@127.0.0.1:%s/" % (getpass.getuser(), self.path("store-" + f.path)), "-e", shell)
        self.each_path(port, check, "closed", "remote-reset", "client-reset")


class Database(PeersTest):
    """PostgreSQL does not run as root: then it runs as nobody."""

    def as_user(self, *command):
        words = [program(command[0])] + list(command[1:])
        if os.getuid() != 0:
            return words
        return [program("setpriv"), "--reuid=nobody", "--clear-groups", "--"] + words

    def postgres(self, port):
        return self.as_user("postgres", "-D", self.path("data"), "-p", port, "-c", "listen_addresses=127.0.0.1",
                            "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=16MB")

    @needs("initdb", "postgres", "pgbench", "psql", "setpriv")
    def test_pgbench_and_postgresql(self):
        os.mkdir(self.path("data"), 0o700)
        if os.getuid() == 0:
            os.chmod(self.folder, 0o755)
            shutil.chown(self.path("data"), "nobody")
        subprocess.run(self.as_user("initdb", "-D", self.path("data"), "-U", "test", "--auth=trust", "--no-sync",
                                    "--locale=C"), check=True, cwd="/", stdout=subprocess.DEVNULL)
        port = self.server(self.postgres)
        self.each_path(port, self.bench, "closed")

    def bench(self, f):
        at = ("-h", "127.0.0.1", "-p", f.address[1], "-U", "test")
        transactions = smaller(200)
        self.run_peer("pgbench", *at, "-q", "-i", "postgres")
        for options in (("-t", transactions), ("-C", "-t", transactions // 10)):
            out = self.run_peer("pgbench", *at, "-n", "-c", 8, *options, "postgres")
            self.assertRegex(out, r"actually processed: (\d+)/\1\n")
        total = self.run_peer("psql", *at, "-Atc", "select (select sum(abalance) from pgbench_accounts) = "
                              "(select sum(delta) from pgbench_history), (select count(*) from pgbench_history)",
                              "postgres")
        self.assertEqual(total, "t|%d\n" % (8 * transactions + 8 * (transactions // 10)))
        rows = self.run_peer("psql", *at, "-Atc", "select i, repeat('-', i % 100) from generate_series(1, 100000) i",
                             "postgres")
        self.assertTrue(rows == "".join("%d|%s\n" % (i, "-" * (i % 100)) for i in range(1, 100001)))


if __name__ == "__main__":
    unittest.main()
