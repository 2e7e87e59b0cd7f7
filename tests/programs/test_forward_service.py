"""portforward as a service: command line, limits, access, Unix sockets, shortages, logs, systemd's gifts and wishes."""
import json
import os
import re
import resource
import shlex
import signal
import socket
import stat
import time
import unittest

from service_support import WAITING, ServiceTest, activated
from support import (DEADLINE, ROOT, WRAPPER, binary, free_port, has_ipv6, is_reset, poll_until, receive, receive_all,
                     reset)


class CommandLine(ServiceTest):
    def test_wrong_usage_is_one_line(self):
        remote = ("-r", "127.0.0.1")
        for args, words in (
                ((), ("no rule",)),
                (("--check",), ("no rule",)),
                (("127.0.0.1 80 127.0.0.1",), ("127.0.0.1 80 127.0.0.1: ",)),
                (("127.0.0.1 80 127.0.0.1 http",), ("http",)),
                (("127.0.0.1 80 127.0.0.1 80 [idle=x]",), ("idle=x",)),
                (("127.0.0.1 80 127.0.0.1 80 [colour=red]",), ("colour",)),
                (("-c", "x.conf", "-r", "127.0.0.1"), ("x.conf", "not from both")),
                (("-c", "x.conf", "127.0.0.1 80 127.0.0.1 80"), ("x.conf", "not from both")),
                (("-c", ""), ("--config",)),
                (("-c", "x.conf", "-p", "80"), ("remote-ip",)),
                (remote + ("--idle", "soon"), ("--idle", "soon")),
                (remote + ("--idle=",), ("--idle",)),
                (remote + ("--max", "-1"), ("--max", "-1")),
                (remote + ("--full", "stop"), ("--full", "stop")),
                (remote + ("--data-path=fast",), ("--data-path", "fast")),
                (remote + ("--drain", "1y"), ("--drain", "1y")),
                (remote + ("--drain", "none"), ("--drain", "none")),
                (remote + ("--log-format", "xml"), ("--log-format", "xml")),
                (remote + ("--log", ""), ("--log",)),
                (remote + ("--keepalive",), ("--keepalive",)),
                (remote + ("--check=yes",), ("--check=yes",)),
                (remote + ("--log-",), ("--log-",)),
        ):
            with self.subTest(args=args):
                code = 1 if "--check" in args and args != ("--check",) else 2
                self.assert_fails(self.run_program("portforward", *args), code, "portforward: ", *words)

    def test_name_servers(self):
        for text in ("dns.example", "1.2.3.4:99999", "1.2.3.4,", "[::1", "[::1]5", "*", "1.2.3.4:53:54", "1" * 2000):
            with self.subTest(text=text):
                result = self.run_program("portforward", "--check", self.rule(), env={"PORTFORWARD_NAMESERVERS": text})
                self.assert_fails(result, 2, "PORTFORWARD_NAMESERVERS")
        for text in ("", "1.2.3.4", "1.2.3.4:5353,[::1]:53", "::1,[::1]"):
            with self.subTest(text=text):
                result = self.run_program("portforward", "--check", self.rule(), env={"PORTFORWARD_NAMESERVERS": text})
                self.assertEqual(result[::2], (0, ""))

    def test_failures_are_one_line(self):
        busy = self.listener()
        empty = self.file("empty.conf", "# nothing")
        for args, words in (
                (("-c", "nowhere.conf"), ("nowhere.conf", "No such file")),
                (("-c", empty), (empty, "no rule")),
                ((self.rule(bind="127.0.0.1 %d" % busy.getsockname()[1]),), ("address already in use",)),
                ((self.rule(), "--log", "nowhere/log"), ("nowhere/log", "No such file")),
                ((self.rule(bind="unix:/nowhere.d/s -"),), ("unix:/nowhere.d/s", "No such file")),
                ((self.rule("[src=192.0.2.1]", bind="192.0.2.1 0"),), ("192.0.2.1", "cannot assign")),
        ):
            with self.subTest(args=args):
                self.assert_fails(self.run_program("portforward", *args), 1, "portforward: ", *words)

    def test_a_pid_file_that_cannot_be_written(self):
        code, _, errors = self.run_program("portforward", self.rule(), "--pid-file", "nowhere/pid")
        self.assertEqual(code, 1)
        self.assert_one_line(errors, "nowhere/pid", "No such file")

    def test_help_shows_every_option_in_a_screenful(self):
        code, out, errors = self.run_program("portforward", "--help")
        lines = out.decode().splitlines()
        self.assertEqual((code, errors), (0, ""))
        self.assertLess(len(lines), 45)
        self.assertLess(max(map(len, lines)), 100)
        for name in ("local-ip local-port remote-ip remote-port config check log log-format log-start pid-file drain "
                     "help version connect idle half life keepalive src max max-per-source rate full backlog data-path "
                     "mode name").split():
            self.assertRegex(out.decode(), r"--%s\b" % name)

    def test_the_manual_is_right(self):
        """Its examples are command lines that are accepted; every option of --help and every reason is in it."""
        with open(os.path.join(ROOT, "docs/man/portforward.1")) as f:
            page = f.read()
        examples = [shlex.split(line[4:]) for line in page.splitlines() if line.startswith(".Dl portforward ")]
        self.assertGreater(len(examples), 20)
        path = self.file("x.conf", self.rule())
        for example in examples:
            args = [path if arg == "/etc/portforward.conf" else arg for arg in example[1:]]
            with self.subTest(args=args):
                self.assertEqual(self.run_program("portforward", *args, "--check")[::2], (0, ""))
        for option in set(re.findall(r"--([a-z-]+)", self.run_program("portforward", "--help")[1].decode())):
            self.assertTrue(re.search(r"^\.It Fl (. , Fl )?-%s\b" % option, page, re.M), option)
        with open(os.path.join(ROOT, "portforward/pair.h")) as f:
            reasons = re.findall(r'^    REASON_\w+, +/\* "([a-z-]+)"', f.read(), re.M)
        self.assertGreater(len(reasons), 10)
        for reason in reasons:
            self.assertRegex(page, r"(?m)^\.It (.* , )?%s\b" % reason)

    def test_rules_of_all_forms_add_up(self):
        self.forward("-r", "127.0.0.1", "-P", self.port, "-p", 0, self.rule(), self.rule(), listeners=3)
        for address in self.program.addresses:
            self.close(*self.ends(address))
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program)

    def test_a_closed_standard_error(self):
        command = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh"] + WRAPPER + [binary("portforward"), self.rule()]
        program = self.start(command)
        program.address = ("127.0.0.1", int(program.read_line().split(",")[0].split(":")[2]))
        self.close(*self.ends(program))
        self.assert_stops(program)


class Check(ServiceTest):
    def check(self, *args, code=0, **popen):
        result = self.run_program("portforward", "--check", *args, **popen)
        self.assertEqual(result[0], code, result)
        return result[1].decode(), result[2]

    def test_shows_what_would_run(self):
        path = self.file("x.conf", "deny 192.0.2.0/24", "* 443 a.example,::1 8443 [connect=3s,idle=90s,full=refuse]",
                         "allow 10.0.0.*", "unix:/run/app.sock - unix:@there - [name=app,mode=0660,keepalive=off]",
                         "127.0.0.1 8080 10.0.0.5 80")
        out, errors = self.check("-c", path)
        self.assertEqual(errors, "")
        for text in ("rule *:443 (%s:2)" % path, "forwards to a.example:8443, [::1]:8443",
                     "connect=3s, idle=90s, full=refuse", "1 lines of its own", "rule app (%s:4)" % path,
                     "listens on unix:/run/app.sock", "forwards to unix:@there", "keepalive=off, mode=0660",
                     "listens on 127.0.0.1:8080\n  forwards to 10.0.0.5:80\n", "rules: 3, which listen on 4 sockets",
                     "access: 1 lines for all rules"):
            self.assertIn(text, out)

    def test_bounds_follow_the_descriptor_limit(self):
        def limited():
            resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))

        out, _ = self.check(self.rule(), preexec_fn=limited)
        self.assertIn("connections: %d at most" % ((1000 - 96 - 1) // 2), out)
        self.assertRegex(out, r"memory: [0-9.]+ MiB at most \(451 \* ")

    def test_bounds_follow_the_rules(self):
        """Where each of them has one, and where these are less than the descriptors allow."""
        for limits, count in ((("max=3", "max=4"), "7"), (("max=3", ""), "[0-9]{3,}"), (("max=9999999",), "451")):
            with self.subTest(limits=limits):
                out, _ = self.check(*[self.rule("[%s]" % limit if limit else "") for limit in limits],
                                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000)))
                bounds = r"connections: %s at most, .*\nmemory: [0-9.]+ MiB at most \(%s \* " % (count, count)
                self.assertRegex(out, bounds)

    def test_soft_limits_do_not_count(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

        def limited():
            resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

        out, _ = self.check(self.rule(), preexec_fn=limited)
        self.assertIn("(%d may be open)" % hard, out)

    def test_select_waits_for_1024_descriptors_at_most(self):
        """More connections than that would be accepted, and fail one by one."""
        out, _ = self.check(self.rule(), env=dict(os.environ, ASYNCORE_ENGINE="select"))
        self.assertIn("(%d may be open)" % min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]), out)

    def test_options_of_the_command_line_are_defaults_of_the_file(self):
        path = self.file("x.conf", "127.0.0.1 1 127.0.0.1 2", "127.0.0.1 3 127.0.0.1 4 [idle=7s]")
        out, _ = self.check("-c", path, "--idle", "5m", "--max=9", "--src", "127.0.0.1", "--backlog", "7", "--rate=3",
                            "--life", "2d", "--half", "1500ms", "--max-per-source", "4", "--data-path", "copy",
                            "--keepalive", "5/6/7", "--connect", "none")
        all_options = ("connect=none, idle=%s, half=1500ms, life=2d, keepalive=5s/6s/7, max=9, max-per-source=4, "
                       "rate=3, backlog=7, data-path=copy, src=127.0.0.1\n")
        self.assertIn(all_options % "5m", out)
        self.assertIn(all_options % "7s", out)

    def test_faults_have_file_and_line(self):
        path = self.file("x.conf", "127.0.0.1 1 127.0.0.1 2", "127.0.0.1 nothing", "", "allow 300.1.1.1",
                         "127.0.0.1 70000 127.0.0.1 2", "127.0.0.1 3 127.0.0.1 4 [max=many]")
        out, errors = self.check("-c", path, code=1)
        self.assertEqual(out, "")
        self.assertEqual([line.split(": ")[1] for line in errors.splitlines()],
                         ["%s:%d" % (path, n) for n in (2, 4, 5, 6)], errors)

    def test_opens_nothing(self):
        """A server that runs with this configuration has the ports, the log and the pid file."""
        path = self.file("x.conf", "127.0.0.1 %d 127.0.0.1 80" % self.port, "logfile log", "pidlogfile pid",
                         "unix:%s/s - 127.0.0.1 80" % self.cwd)
        self.check("-c", path)
        self.assertEqual(os.listdir(self.cwd), ["x.conf"])

    def test_nobody_reads_it(self):
        command = ["/bin/sh", "-c", 'exec "$@" >/dev/full', "sh"] + WRAPPER + [binary("portforward")]
        self.assert_fails(self.run_program(command, "--check", self.rule()), 1, "standard output")


class Limits(ServiceTest):
    def check_pause(self):
        """Two are served; the third waits in the queue until one has left."""
        pairs = [self.ends() for _ in range(2)]
        third = self.connect(self.program)
        third.sendall(b"early")
        self.assert_waits()
        self.assert_no_spin(self.program)
        self.exchange(*pairs[1])
        self.close(*pairs[0])
        server = self.accept()
        self.assertEqual(receive(server, 5), b"early")
        self.close(third, server, *pairs[1])
        self.assert_fds_return(self.program, self.fds)
        self.close(*self.ends())
        self.assert_stops(self.program)

    def test_max_pauses(self):
        self.forward(self.rule("[max=2]"))
        self.check_pause()

    def test_max_of_both_listeners_together(self):
        if not has_ipv6():
            self.skipTest("no IPv6 here")
        self.forward(self.rule("[max=2]", bind="* 0"), listeners=2)
        v4, v6 = ("127.0.0.1", self.program.addresses[0][1]), ("::1", self.program.addresses[1][1])
        self.assertEqual(v4[1], v6[1], "IPv6 has another port than IPv4")
        first, second = self.ends(v4), self.ends(v6)
        waiting = [self.connect(address) for address in (v4, v6)]
        self.assert_waits()
        self.close(*first)
        server = self.accept()
        self.assert_waits()
        self.close(*second)
        self.close(server, self.accept(), *waiting)
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program)

    def test_max_refuses(self):
        self.forward(self.rule("[max=2,full=refuse,name=web]"))
        pairs = [self.ends() for _ in range(2)]
        for _ in range(5):
            self.assert_refused()
        self.exchange(*pairs[1])
        self.close(*pairs[0])
        poll_until(lambda: self.program.fds() == self.fds + 2, "the pair has ended")
        self.close(*self.ends())
        self.close(*pairs[1])
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program, errors="portforward: rule=web refused=5 denied=0 failed=0\n")

    def test_counts_are_one_line_in_ten_seconds(self):
        self.forward(self.rule("[max=1,full=refuse,name=web]"), "deny 127.0.0.9")
        pair = self.ends()
        for i in range(7):
            self.assert_refused()
            self.assert_refused(source="127.0.0.9")
        self.assertEqual(self.program.events(), "")
        self.event("refused=7 denied=7 failed=0")
        self.assert_no_spin(self.program)
        self.assert_refused()
        self.close(*pair)
        self.assert_stops(self.program, errors="portforward: rule=web refused=7 denied=7 failed=0\n"
                                               "portforward: rule=web refused=1 denied=0 failed=0\n")

    def test_per_source(self):
        self.forward(self.rule("[max-per-source=2]"))
        pairs = [self.ends() for _ in range(2)]
        for _ in range(3):
            self.assert_refused()
        other = self.ends(source="127.0.0.2")
        self.assert_no_spin(self.program)
        self.close(*pairs[0])
        poll_until(lambda: self.program.fds() == self.fds + 4, "the pair has ended")
        self.close(*self.ends())
        self.close(*pairs[1], *other)
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program, errors=None)

    def test_per_source_forgets_those_who_left(self):
        self.forward(self.rule("[max-per-source=1]"))
        for i in range(300):
            client, server = self.ends(source="127.0.%d.%d" % (i % 3 + 1, i % 250 + 1))
            reset(client)
            self.assertTrue(is_reset(server))
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program)

    def test_per_source_after_a_remote_that_refuses(self):
        """A connection that never was must not stay counted."""
        self.forward(self.rule("[max-per-source=1]", port=free_port()))
        for _ in range(5):
            self.assert_refused()
            self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program)
        self.assertEqual(self.program.ends(), ["connect-refused"] * 5)

    def test_rate_pauses(self):
        self.forward(self.rule("[rate=5]"))
        start = time.monotonic()
        clients = [self.connect(self.program) for _ in range(10)]
        times = []
        for _ in clients:
            self.close(self.accept())
            times.append(time.monotonic() - start)
        self.assertGreater(times[9], 0.99)  # five at once, then one each 200 ms
        self.assertGreater(times[5], 0.19)
        self.close(*clients)
        self.assert_no_spin(self.program)
        self.assert_stops(self.program)

    def test_rate_refuses(self):
        self.forward(self.rule("[rate=3,full=refuse,name=r]"))
        start = time.monotonic()
        clients = []
        refused = 0
        while time.monotonic() - start < 1.5:
            try:
                client = self.connect(self.program)
                self.server.settimeout(0.1)
                self.close(self.accept())
                clients.append(client)
            except (ConnectionResetError, TimeoutError):
                refused += 1
        took = time.monotonic() - start
        self.assertLessEqual(len(clients), 3 + 3 * took)
        self.assertGreaterEqual(len(clients), 4)
        self.assertGreater(refused, 0)
        self.close(*clients)
        self.assert_stops(self.program, errors=None)

    def limited(self, *rules):
        """Room for six connections of all rules."""
        def lower():
            resource.setrlimit(resource.RLIMIT_NOFILE, (24 + len(rules), 24 + len(rules)))

        return self.forward(*rules, listeners=len(rules), preexec_fn=lower)

    @unittest.skipIf(WRAPPER, "a checker needs descriptors too")
    def test_total_of_all_rules(self):
        other = self.listener()
        self.limited(self.rule(), self.rule(port=other.getsockname()[1]))
        first, second = self.program.addresses
        pairs = [self.ends(first) for _ in range(6)]
        waiting = [self.connect(first), self.connect(second), self.connect(second)]
        self.assert_waits()
        self.assert_waits(other)
        self.assert_no_spin(self.program)
        for pair in pairs[:3]:
            self.close(*pair)
        servers = [self.accept(), self.accept(other), self.accept(other)]
        last = self.connect(second)
        self.assert_waits(other)
        self.close(*waiting, *servers)
        self.close(self.accept(other), last)
        for pair in pairs[3:]:
            self.close(*pair)
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program)

    @unittest.skipIf(WRAPPER, "a checker needs descriptors too")
    def test_total_refuses_where_a_rule_says_so(self):
        self.limited(self.rule(), self.rule("[full=refuse]"))
        pairs = [self.ends() for _ in range(6)]
        for _ in range(3):
            self.assert_refused(self.program.addresses[1])
        for pair in pairs:
            self.close(*pair)
        self.assert_fds_return(self.program, self.fds)
        self.close(*self.ends(self.program.addresses[1]))
        self.assert_stops(self.program, errors=None)

    def test_a_name_that_is_not_known_yet_lets_clients_wait(self):
        """A name server that does not answer: nobody is reset before it is known whether the name exists."""
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(DEADLINE)
        self.forward("127.0.0.1 0 remote.test 80",
                     env={"PORTFORWARD_NAMESERVERS": "127.0.0.1:%d" % silent.getsockname()[1]})
        query, asker = silent.recvfrom(512)
        client = self.connect(self.program)
        client.settimeout(WAITING)
        with self.assertRaises(TimeoutError):
            client.recv(1)
        client.settimeout(DEADLINE)
        queries = [(query, asker)]
        while queries:  # NXDOMAIN to each
            query, asker = queries.pop()
            question = query[12:].split(b"\0\0\x29")[0]
            silent.sendto(query[:2] + b"\x81\x83" + query[4:6] + b"\0\0\0\0\0\0" + question, asker)
            silent.settimeout(1)
            try:
                queries.append(silent.recvfrom(512))
            except TimeoutError:
                pass
        self.assertTrue(is_reset(client))
        self.assert_stops(self.program, errors=None)
        self.assertEqual(self.program.ends(), ["no-address"])


class Access(ServiceTest):
    def check(self, lines, allowed, denied, **options):
        self.forward(*lines, **options)
        for source in allowed:
            self.close(*self.ends(source=source))
        for source in denied:
            self.assert_refused(source=source)
        self.assert_stops(self.program, errors=None)
        if denied:
            self.assertIn(" denied=%d " % len(denied), self.program.events())

    def test_deny(self):
        self.check(["deny 127.0.0.2", self.rule()], ["127.0.0.1", "127.0.0.3"], ["127.0.0.2"])

    def test_allow(self):
        self.check(["allow 127.0.0.0/30", self.rule()], ["127.0.0.1", "127.0.0.3"], ["127.0.0.4", "127.0.1.1"])

    def test_deny_goes_over_allow(self):
        self.check([self.rule(), "allow 127.0.0.*", "deny 127.0.0.2"], ["127.0.0.1"], ["127.0.0.2", "127.0.2.1"])

    def test_a_rules_own_is_no_others(self):
        self.forward(self.rule(), "deny 127.0.0.2", self.rule(), listeners=2)
        self.assert_refused(source="127.0.0.2")
        self.close(*self.ends(self.program.addresses[1], source="127.0.0.2"))
        self.assert_stops(self.program, errors=None)

    def test_clients_of_both_families(self):
        if not has_ipv6():
            self.skipTest("no IPv6 here")
        self.forward(self.rule(bind="* 0"), "allow 127.0.0.1", listeners=2)
        port = self.program.addresses[0][1]
        self.close(*self.ends(("127.0.0.1", port)))
        self.assert_refused(("127.0.0.1", port), source="127.0.0.2")
        self.assert_refused(("::1", port))
        self.assert_stops(self.program, errors=None)

    def test_mapped_clients_are_what_they_are(self):
        """A socket of the service manager's may be bound to a mapped IPv4 address: its clients come mapped too."""
        if not has_ipv6():
            self.skipTest("no IPv6 here")
        listener = socket.socket(socket.AF_INET6)
        self.addCleanup(listener.close)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::ffff:127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        activated(self, [listener], "deny 127.0.0.2", self.rule("[max-per-source=1]", "::ffff:127.0.0.1 %d" % port))
        address = ("127.0.0.1", port)
        client, server = self.ends(address)
        self.assert_refused(address, source="127.0.0.2")
        self.assert_refused(address)
        self.close(client, server)
        self.assert_stops(self.program, errors=None)
        self.assertIn(" client=127.0.0.1:", self.program.errors())
        self.assertIn(" refused=1 denied=1 ", self.program.events())


class Unix(ServiceTest):
    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.cwd, "s")

    def through(self, path=None):
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.settimeout(DEADLINE)
        s.connect(path or self.path)
        server = self.accept()
        self.exchange(s, server)
        self.close(s, server)

    def test_mode_and_end_of_the_file(self):
        self.forward(self.rule("[mode=0640]", "unix:%s -" % self.path))
        status = os.stat(self.path)
        self.assertTrue(stat.S_ISSOCK(status.st_mode))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o640)
        self.assertEqual(self.program.address[0], "unix:" + self.path)
        self.through()
        self.assert_stops(self.program)
        self.assertFalse(os.path.exists(self.path))
        self.assertIn("client=unix: ", self.program.errors())

    def test_mode_of_the_umask(self):
        self.forward(self.rule(bind="unix:%s -" % self.path), preexec_fn=lambda: os.umask(0o027))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o750)
        self.assert_stops(self.program)

    def test_abstract(self):
        name = "asyncore-test-%d" % os.getpid()
        self.forward(self.rule(bind="unix:@%s -" % name))
        self.through("\0" + name)
        self.assert_stops(self.program)

    def test_a_file_that_was_left_behind(self):
        self.forward(self.rule(bind="unix:%s -" % self.path))
        self.program.stop(signal.SIGKILL)
        self.assertTrue(os.path.exists(self.path))
        self.forward(self.rule(bind="unix:%s -" % self.path))
        self.through()
        self.assert_stops(self.program)

    def test_a_file_that_somebody_listens_at(self):
        self.forward(self.rule(bind="unix:%s -" % self.path))
        result = self.run_program("portforward", self.rule(bind="unix:%s -" % self.path))
        self.assert_fails(result, 1, "unix:" + self.path, "address already in use")
        self.through()
        self.assert_stops(self.program, errors=None)

    def test_a_file_that_is_no_socket(self):
        self.file("s", "precious")
        self.assert_fails(self.run_program("portforward", self.rule(bind="unix:%s -" % self.path)), 1, "already in use")
        with open(self.path) as f:
            self.assertEqual(f.read(), "precious\n")

    def test_a_file_that_is_anothers_by_now(self):
        self.forward(self.rule(bind="unix:%s -" % self.path))
        os.unlink(self.path)
        other = socket.socket(socket.AF_UNIX)
        other.bind(self.path)
        self.assert_stops(self.program)
        self.assertTrue(os.path.exists(self.path))
        other.close()
        os.unlink(self.path)

    def test_reload_keeps_the_file(self):
        path = self.file("x.conf", self.rule("[mode=0600]", "unix:%s -" % self.path))
        self.forward("-c", path)
        before = os.stat(self.path)
        self.file("x.conf", self.rule("[mode=0666]", "unix:%s -" % self.path))
        self.signal(signal.SIGHUP)
        self.event("reloaded: 1 rules")
        after = os.stat(self.path)
        self.assertEqual((after.st_ino, stat.S_IMODE(after.st_mode)), (before.st_ino, 0o666))
        self.through()
        self.file("x.conf", self.rule())
        self.signal(signal.SIGHUP)
        self.event("reloaded", 2)
        self.assertFalse(os.path.exists(self.path))
        self.assert_stops(self.program, errors=None)


@unittest.skipIf(WRAPPER, "a checker needs descriptors too")
class Shortage(ServiceTest):
    """The limit of descriptors is lowered while it runs, so that its own limit does not see to it first."""

    def limit(self, descriptors):
        hard = resource.prlimit(self.program.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(self.program.pid, resource.RLIMIT_NOFILE, (descriptors or hard, hard))

    def room(self, count):
        """So many descriptors more than it has now, and it has no gaps."""
        self.limit(len(os.listdir("/proc/%d/fd" % self.program.pid)) + count)

    def recovers(self):
        self.limit(None)

    def test_at_accept(self):
        self.forward(self.rule("[name=web]"))
        pair = self.ends()
        self.room(0)
        waiting = [self.connect(self.program) for _ in range(5)]
        self.assert_waits()
        self.assert_no_spin(self.program, 1)
        self.exchange(*pair)
        self.recovers()
        for client in waiting:
            client.sendall(b"patience")
            self.assertEqual(receive(self.accept(), 8), b"patience")
        self.assert_stops(self.program, signal.SIGINT, errors=None)
        self.assertRegex(self.program.events(),
                         r"\Aportforward: rule=web refused=0 denied=0 failed=[0-9]+ error=Too many open files\n\Z")

    def test_when_it_drains(self):
        """Clients that cannot be accepted any more are told, and no reason to wait."""
        self.forward(self.rule("[name=web]"))
        pair = self.ends()
        self.signal(signal.SIGSTOP)
        waiting = [self.connect(self.program) for _ in range(5)]
        self.room(0)
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        for client in waiting:
            self.assertTrue(is_reset(client))
        self.exchange(*pair)
        self.close(*pair)
        self.assertEqual(self.program.wait(), 0)
        self.assertIn("rule=web refused=0 denied=0 failed=", self.program.events())

    def test_at_the_second_socket(self):
        self.forward(self.rule())
        pair = self.ends()
        self.room(1)
        for _ in range(5):
            self.assert_refused()
            poll_until(lambda: self.program.fds() == self.fds + 2, "its descriptor is closed")
        self.assert_no_spin(self.program, 1)
        self.exchange(*pair)
        self.recovers()
        self.close(*self.ends())
        self.close(*pair)
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program, errors=None)
        self.assertEqual(self.program.ends().count("no-resources"), 5)

    def test_at_the_pipe(self):
        """Bytes that cannot be spliced are copied."""
        self.forward(self.rule("[data-path=splice]"))
        client, server = self.ends()
        self.room(0)
        before = len(os.listdir("/proc/%d/fd" % self.program.pid))
        data = bytes(range(256)) * 16384
        for a, b in ((client, server), (server, client)):
            join = self.in_thread(a.sendall, data)
            self.assertTrue(receive(b, len(data)) == data)
            join()
        self.assertEqual(len(os.listdir("/proc/%d/fd" % self.program.pid)), before)
        self.assert_no_spin(self.program)
        self.close(client, server)
        self.assert_fds_return(self.program, self.fds)
        self.recovers()
        self.assert_stops(self.program)


class Storm(ServiceTest):
    CLIENTS = 2000

    def test_clients_that_come_starve_no_flow(self):
        """All of them wait when a flow has something to pass on. It does not wait until they are served; the log has
        the order in which things were done, however slow the machine is."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < self.CLIENTS + 200:
            self.skipTest("no descriptors for %d clients" % self.CLIENTS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        self.forward(self.rule("[name=flow]"), self.rule("[name=storm]", port=free_port()), "--log-start", listeners=2)
        client, server = self.ends()
        self.signal(signal.SIGSTOP)
        storm = []
        for _ in range(self.CLIENTS):
            s = socket.socket()
            self.addCleanup(s.close)
            s.setblocking(False)
            s.connect_ex(self.program.addresses[1])
            storm.append(s)
        client.sendall(b"last words")
        self.close(client)
        server.shutdown(socket.SHUT_WR)
        self.signal(signal.SIGCONT)
        self.assertEqual(receive_all(server), b"last words")
        poll_until(lambda: self.program.ends().count("connect-refused") == self.CLIENTS, "all clients were served")
        self.assertEqual(self.program.ends().count("closed"), 1)
        before = self.program.errors().partition(" end=closed\n")[0]
        self.assertLess(len(re.findall("rule=storm .* start\n", before)), self.CLIENTS // 5)
        self.assert_fds_return(self.program, self.fds)
        self.assert_stops(self.program)


class Systemd(ServiceTest):
    def setUp(self):
        super().setUp()
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.name = "asyncore-notify-%d-%d" % (os.getpid(), id(self))
        self.manager.bind("\0" + self.name)
        self.manager.settimeout(DEADLINE)
        self.env = {"NOTIFY_SOCKET": "@" + self.name}

    def assert_told(self, *states):
        for state in states:
            self.assertRegex(self.manager.recv(4096).decode(), r"\A" + state)

    def test_states(self):
        path = self.file("x.conf", self.rule())
        self.forward("-c", path, env=self.env)
        self.assert_told("READY=1")
        self.close(*self.ends())
        self.signal(signal.SIGHUP)
        self.assert_told("RELOADING=1\nMONOTONIC_USEC=[0-9]+", "READY=1")
        self.file("x.conf", "wrong")
        self.signal(signal.SIGHUP)
        self.assert_told("RELOADING=1", "READY=1")
        self.assert_stops(self.program, errors=None)
        self.assert_told("STOPPING=1")

    def test_not_ready_without_its_listeners(self):
        self.run_program("portforward", self.rule(bind="127.0.0.1 %d" % self.port), env=self.env)
        self.manager.settimeout(WAITING)
        self.assertRaises(TimeoutError, self.manager.recv, 4096)

    def test_sockets(self):
        """It listens on those that it was given, and says which it has no use for."""
        mine, other = self.listener(), self.listener()
        waiting = self.connect(mine.getsockname())
        activated(self, [other, mine], self.rule(bind="127.0.0.1 %d" % mine.getsockname()[1]), listeners=1)
        port = mine.getsockname()[1]
        mine.close()
        other_address = other.getsockname()
        other.close()
        self.close(waiting, self.accept())
        self.close(*self.ends(("127.0.0.1", port)))
        with self.assertRaises(ConnectionRefusedError):
            self.connect(other_address)
        self.assertIn("%s:%d: the service manager listens there" % other_address, self.program.events())
        self.assert_stops(self.program, errors=None)

    def test_a_socket_of_both_families(self):
        if not has_ipv6():
            self.skipTest("no IPv6 here")
        both = socket.socket(socket.AF_INET6)
        self.addCleanup(both.close)
        both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        both.bind(("::", 0))
        both.listen()
        for bind in ("0.0.0.0", "::", "*"):
            activated(self, [both], self.rule(bind="%s %d" % (bind, both.getsockname()[1])), listeners=0)
            self.assertEqual(self.program.wait(), 1)
            self.assert_one_line(self.program.errors(), bind, "BindIPv6Only=ipv6-only")

    def test_options_of_a_socket_that_was_given(self):
        mine = self.listener()
        activated(self, [mine], self.rule("[keepalive=7/8/9]", "127.0.0.1 %d" % mine.getsockname()[1]))
        for level, option, value in ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                                     (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
                                     (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                                     (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7),
                                     (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 8),
                                     (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 9)):
            self.assertEqual(mine.getsockopt(level, option), value, (level, option))
        self.assert_stops(self.program)

    def test_a_unix_socket_that_was_given_keeps_its_file(self):
        path = os.path.join(self.cwd, "s")
        s = socket.socket(socket.AF_UNIX)
        self.addCleanup(s.close)
        s.bind(path)
        s.listen()
        activated(self, [s], self.rule(bind="unix:%s -" % path))
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.connect(path)
        self.exchange(client, self.accept())
        self.assert_stops(self.program, signal.SIGINT, errors=None)
        self.assertTrue(os.path.exists(path))
        os.unlink(path)


class Sight(ServiceTest):
    def log(self):
        with open(os.path.join(self.cwd, "log")) as f:
            return f.read().splitlines()

    def forward_to_log(self, *args):
        self.addCleanup(lambda: [os.unlink(os.path.join(self.cwd, name)) for name in os.listdir(self.cwd)])
        return self.forward(*args, "--log", "log")

    def a_few_connections(self):
        """A clean one, one of each reset, and their bytes."""
        client, server = self.ends()
        self.close(client, server)
        self.assert_fds_return(self.program, self.fds)
        client, server = self.ends()
        client.sendall(b"12345")
        receive(server, 5)
        reset(client)
        self.assertTrue(is_reset(server))
        self.assert_fds_return(self.program, self.fds)
        client, server = self.ends()
        reset(server)
        self.assertTrue(is_reset(client))
        self.assert_fds_return(self.program, self.fds)

    def test_text(self):
        self.forward_to_log(self.rule("[name=web]"))
        self.a_few_connections()
        self.assert_stops(self.program)
        remote = "127.0.0.1:%d" % self.port
        found = [re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z rule=web client=127\.0\.0\.1:\d+ remote=%s "
                              r"up=(\d+) down=(\d+) ms=\d+ end=(\S+)" % remote, line) for line in self.log()]
        self.assertEqual([m and m.groups() for m in found], [("7", "7", "closed"), ("12", "7", "client-reset"),
                                                             ("7", "7", "remote-reset")], self.log())

    def test_json(self):
        self.forward_to_log(self.rule("[name=web]"), "--log-format=json", "--log-start")
        self.a_few_connections()
        self.signal(signal.SIGUSR2)
        poll_until(lambda: any("0 connections" in line for line in self.log()), "the table")
        self.assert_stops(self.program)
        lines = [json.loads(line) for line in self.log()]
        connections = [line for line in lines if "rule" in line]
        self.assertEqual([line.get("end", "start") for line in connections],
                         ["start", "closed", "start", "client-reset", "start", "remote-reset"])
        self.assertEqual([(line["up"], line["down"]) for line in connections if "end" in line],
                         [(7, 7), (12, 7), (7, 7)])
        self.assertTrue(all(line["rule"] == "web" for line in connections))

    def test_sigusr1_opens_the_log_again(self):
        self.forward_to_log(self.rule())
        self.close(*self.ends())
        poll_until(self.log, "a line")
        os.rename(os.path.join(self.cwd, "log"), os.path.join(self.cwd, "log.1"))
        self.close(*self.ends())
        with open(os.path.join(self.cwd, "log.1")) as f:
            poll_until(lambda: (f.seek(0), len(f.readlines()))[1] == 2, "the line goes where the file went")
        self.signal(signal.SIGUSR1)
        poll_until(lambda: os.path.exists(os.path.join(self.cwd, "log")), "a new file")
        self.close(*self.ends())
        poll_until(self.log, "a line in the new file")
        self.assert_stops(self.program)

    def test_the_files_log_and_pid_file(self):
        path = self.file("x.conf", "logfile log", "pidlogfile pid", self.rule())
        self.addCleanup(lambda: [os.unlink(os.path.join(self.cwd, name)) for name in os.listdir(self.cwd)])
        self.forward("-c", path)
        with open(os.path.join(self.cwd, "pid")) as f:
            self.assertEqual(int(f.read()), self.program.pid)
        self.close(*self.ends())
        poll_until(self.log, "a line")
        self.file("x.conf", "logfile log2", self.rule())
        self.signal(signal.SIGHUP)
        poll_until(lambda: os.path.exists(os.path.join(self.cwd, "log2")), "the other log")
        self.assert_stops(self.program)
        self.assertFalse(os.path.exists(os.path.join(self.cwd, "pid")))

    def test_the_command_lines_go_before_the_files(self):
        path = self.file("x.conf", "logfile log2", "pidlogfile pid2", self.rule())
        self.addCleanup(lambda: [os.unlink(os.path.join(self.cwd, name)) for name in os.listdir(self.cwd)])
        self.forward("-c", path, "--log", "stderr", "--pid-file", "pid")
        self.assertEqual(sorted(os.listdir(self.cwd)), ["pid", "x.conf"])
        self.assert_stops(self.program)

    def test_sigusr2_shows_every_connection(self):
        self.forward(self.rule("[name=web]"))
        pairs = [self.ends() for _ in range(3)]
        pairs[1][0].shutdown(socket.SHUT_WR)
        self.assertEqual(pairs[1][1].recv(1), b"")
        self.signal(signal.SIGUSR2)
        events = self.event("3 connections\n")
        self.assertIn("listening on 127.0.0.1:%d, forwarding to 127.0.0.1:%d\n" % (self.program.address[1], self.port),
                      events)
        rows = re.findall(r"rule=web client=127\.0\.0\.1:(\d+) remote=127\.0\.0\.1:\d+ state=(\S+) up=7 down=7 "
                          r"in-flight=0 ms=\d+ idle-ms=\d+\n", self.program.errors())
        self.assertEqual({int(port): state for port, state in rows},
                         {client.getsockname()[1]: "half" if client is pairs[1][0] else "open" for client, _ in pairs})
        for pair in pairs:
            self.close(*pair)
        self.assert_stops(self.program, errors=None)


if __name__ == "__main__":
    unittest.main()
