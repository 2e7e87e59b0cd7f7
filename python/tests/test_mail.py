"""smtpd: dialogues over a real connection, what was mended, and the program."""
import asyncore
import errno
import io
import os
import smtpd
import socket
import subprocess
import sys
import time
import unittest
import warnings
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

from support import DEADLINE, Case, until


class Server(smtpd.SMTPServer):
    answer = None

    def __init__(self, map, **kwargs):
        self.messages = []
        smtpd.SMTPServer.__init__(self, ("127.0.0.1", 0), None, map=map, **kwargs)

    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        self.messages.append((mailfrom, rcpttos, data, kwargs))
        return self.answer


class Dialogue(Case):
    def client(self, **kwargs):
        server = Server(self.map, **kwargs)
        sock = socket.create_connection(server.socket.getsockname())
        self.addCleanup(sock.close)
        sock.settimeout(0)
        self.sock = sock
        self.receive()
        return server

    def receive(self, lines=1):
        """The next lines that the server sends."""
        data = b""

        def turn():
            nonlocal data
            asyncore.poll(0.01, self.map)
            try:
                data += self.sock.recv(65536) or b"<end>\r\n"
            except BlockingIOError:
                pass

        until(lambda: data.count(b"\r\n") >= lines, turn)
        return data.decode("latin-1")

    def say(self, line, lines=1):
        self.sock.sendall(line + b"\r\n")
        return self.receive(lines)

    def begin(self):
        self.say(b"EHLO x", 4)
        self.say(b"MAIL FROM:<a@b>")
        self.say(b"RCPT TO:<c@d>")
        self.say(b"DATA")

    def test_a_message(self):
        server = self.client()
        self.begin()
        self.assertEqual(self.say(b"Subject: x\r\n\r\n..dot\r\ntext\r\n."), "250 OK\r\n")
        self.assertEqual(server.messages, [("a@b", ["c@d"], b"Subject: x\n\n.dot\ntext",
                                            {"mail_options": [], "rcpt_options": []})])
        self.assertEqual(self.say(b"QUIT"), "221 Bye\r\n")
        self.assertEqual(self.receive(), "<end>\r\n")

    def test_a_message_as_text_with_characters_in_pieces(self):
        server = self.client(decode_data=True)
        self.say(b"EHLO x", 3)
        for line in (b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA"):
            self.say(line)
        for byte in "h\xe9llo \u20ac".encode("utf-8"):
            self.sock.sendall(bytes([byte]))
            until(lambda: True, lambda: None)
            for _ in range(3):
                asyncore.poll(0.001, self.map)
        self.assertEqual(self.say(b"\r\n."), "250 OK\r\n")
        self.assertEqual(server.messages, [("a@b", ["c@d"], "h\xe9llo \u20ac", {})])

    def test_an_answer(self):
        server = self.client()
        server.answer = "451 Later \xe9"
        self.begin()
        self.assertEqual(self.say(b"x\r\n."), "451 Later \\xe9\r\n")

    def test_bad_lines_are_answered_and_do_not_end_it(self):
        self.client()
        self.say(b"EHLO x", 4)
        for line, answer in ((b"\xff", "500 Error: bad syntax"),
                             (b"MAIL FROM:,", "501 Syntax: MAIL FROM: <address> [SP"),
                             (b"MAIL FROM:<a@b> SIZE", "501 Syntax: MAIL FROM: <address> [SP"),
                             (b"VRFY @@ <", "502 Could not VRFY @@ <"),
                             ("H\xc9".encode("utf-8"), '500 Error: command "H\\xc9" not recognized'),
                             (b"x" * 100000, "500 Error: line too long"), (b"", "500 Error: bad syntax")):
            self.assertTrue(self.say(line).startswith(answer), line)
        self.assertEqual(self.say(b"NOOP"), "250 OK\r\n")

    def test_after_too_much_data_a_new_message_may_begin(self):
        server = self.client(data_size_limit=10)
        self.begin()
        self.assertEqual(self.say(b"x" * 50 + b"\r\n."), "552 Error: Too much mail data\r\n")
        self.assertEqual(self.say(b"MAIL FROM:<a@b>"), "250 OK\r\n")
        self.say(b"RCPT TO:<c@d>")
        self.say(b"DATA")
        self.assertEqual(self.say(b"short\r\n."), "250 OK\r\n")
        self.assertEqual([message[2] for message in server.messages], [b"short"])

    def test_limits_of_one_client_are_not_anothers(self):
        server = Server(self.map)
        channels = []
        for _ in range(2):
            a, b = self.pair()
            channels.append(smtpd.SMTPChannel(server, a, None, map=self.map))
        channels[0].smtp_EHLO("x")
        self.assertEqual([channel.max_command_size_limit for channel in channels], [538, 512])
        self.assertEqual(dict(smtpd.SMTPChannel.command_size_limits), {})

    def test_silence_is_ended_if_asked_for(self):
        server = Server(self.map)
        server.idle_timeout = 0.05
        with socket.create_connection(server.socket.getsockname()) as sock:
            data = []
            sock.settimeout(0)

            def turn():
                asyncore.poll(0.01, self.map)
                try:
                    data.append(sock.recv(1000))
                except BlockingIOError:
                    pass

            until(lambda: data and data[-1] == b"", turn)
        self.assertIn(b"421 Error: timeout\r\n", b"".join(data))
        self.assertIsNone(smtpd.SMTPServer.idle_timeout)

    def test_two_options_that_exclude_each_other(self):
        with self.assertRaises(ValueError):
            Server(self.map, enable_SMTPUTF8=True, decode_data=True)
        self.assertEqual(self.map, {})

    def test_names_of_old_are_deprecated(self):
        a, b = self.pair()
        channel = smtpd.SMTPChannel(None, a, None, map=self.map)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            channel._SMTPChannel__mailfrom = "x"
            self.assertEqual(channel._SMTPChannel__mailfrom, "x")
        self.assertEqual([(w.category, os.path.basename(w.filename)) for w in caught],
                         [(DeprecationWarning, "test_mail.py")] * 2)

    def test_the_proxy_hands_on_both_kinds_of_messages(self):
        class Proxy(smtpd.PureProxy):
            def _deliver(self, *args):
                delivered.append(args)
                return {}

        delivered = []
        proxy = Proxy(("127.0.0.1", 0), ("127.0.0.1", 1), map=self.map)
        proxy.process_message(("peer", 1), "a", ["b"], b"S: x\n\ntext", mail_options=[], rcpt_options=[])
        proxy.process_message(("peer", 1), "a", ["b"], "S: x\n\ntext")
        self.assertEqual(delivered, [("a", ["b"], b"S: x\nX-Peer: peer\n\ntext"),
                                     ("a", ["b"], "S: x\nX-Peer: peer\n\ntext")])

    def test_the_proxy_delivers(self):
        server = Server(self.map)
        proxy = smtpd.PureProxy(("127.0.0.1", 0), server.socket.getsockname(), map=self.map)
        import threading
        refused = []
        thread = threading.Thread(target=lambda: refused.append(proxy._deliver("a@b", ["c@d"], b"S: x\n\ntext")))
        thread.start()
        until(lambda: not thread.is_alive(), lambda: asyncore.poll(0.01, self.map))
        self.assertEqual(refused, [{}])
        self.assertEqual(server.messages[0][:3], ("a@b", ["c@d"], b"S: x\n\ntext"))
        server.close()
        out = io.StringIO()
        debug, smtpd.DEBUGSTREAM = smtpd.DEBUGSTREAM, out
        self.addCleanup(setattr, smtpd, "DEBUGSTREAM", debug)
        self.assertEqual(proxy._deliver("a@b", ["c@d", "e@f"], b""), {"c@d": (-1, "ignore"), "e@f": (-1, "ignore")})
        self.assertEqual(out.getvalue(), "got <class 'ConnectionRefusedError'>\n")

    def test_the_debugging_server_prints(self):
        server = smtpd.DebuggingServer(("127.0.0.1", 0), None, map=self.map)
        out = io.StringIO()
        with redirect_stdout(out):
            server.process_message(("peer", 1), "a", ["b"], b"S: x\n\nh\xe9", mail_options=["BODY=8BITMIME"],
                                   rcpt_options=[])
        self.assertEqual(out.getvalue(), "---------- MESSAGE FOLLOWS ----------\nmail options: ['BODY=8BITMIME']\n"
                                         "b'S: x'\nb'X-Peer: peer'\nb''\nb'h\\xe9'\n"
                                         "------------ END MESSAGE ------------\n")


class Program(unittest.TestCase):
    def command(self, *args):
        process = subprocess.run([sys.executable, "-m", "smtpd"] + list(args), stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE)
        return process.returncode, process.stdout.decode(), process.stderr.decode()

    def parsed(self, *args):
        """What parseargs() and what follows it say to these arguments."""
        errors = io.StringIO()
        with mock.patch.object(sys, "argv", ["smtpd"] + list(args)), redirect_stderr(errors):
            with self.assertRaises(SystemExit) as caught:
                smtpd._main()
        return caught.exception.code, errors.getvalue()

    def test_usage(self):
        self.assertEqual(self.command("-V"), (0, "Python SMTP proxy version 0.3\n", ""))
        self.assertEqual(self.parsed("--help")[0], 0)
        for args, text in ((("--nosuch",), "option --nosuch not recognized"),
                           (("a", "b", "c"), "Invalid arguments: a, b, c"), (("-n", "a"), "Bad local spec: a"),
                           (("-n", "a:x"), "Bad local port: a:x"), (("-n", "a:1", "b"), "Bad remote spec: b"),
                           (("-n", "-s", "x"), "Invalid size: x"), (("-n", "-s", "-1"), "Invalid size: -1"),
                           (("-n", "-t", "0"), "Invalid timeout: 0"),
                           (("-n", "-t", "nan"), "Invalid timeout: nan"),
                           (("-n", "-c", "Nosuch", "localhost:0"), "no such class: Nosuch"),
                           (("-n", "-c", "nosuch.Class", "localhost:0"), "no such class: nosuch.Class")):
            status, errors = self.parsed(*args)
            self.assertEqual(status, 1)
            self.assertTrue(errors.rstrip().endswith(text), errors)

    def test_what_cannot_be_listened_on_is_one_line(self):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            sock.listen(1)
            taken = "127.0.0.1:%d" % sock.getsockname()[1]
            for where, why in ((taken, os.strerror(errno.EADDRINUSE)),
                               ("127.0.0.1:65536", "bind(): port must be 0-65535.")):
                self.assertEqual(self.parsed("-n", where), (1, "smtpd: cannot listen on %s: %s\n" % (where, why)))

    def test_usage_names_the_program(self):
        self.assertEqual(self.command("-h")[2].split("\n")[0][:16], "usage: smtpd [op")

    def test_the_debugging_server(self):
        for _ in range(5):  # the port was free a moment ago
            with socket.socket() as sock:
                sock.bind(("localhost", 0))
                port = sock.getsockname()[1]
            process = subprocess.Popen([sys.executable, "-u", "-m", "smtpd", "-n", "-c", "DebuggingServer",
                                        "localhost:%d" % port], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE)
            try:
                if self.send(process, port):
                    process.send_signal(2)
                    output, errors = process.communicate(timeout=DEADLINE)
                    self.assertEqual((process.returncode, errors), (0, b""))
                    self.assertIn(b"b'Subject: hello'", output)
                    return
            finally:
                if process.poll() is None:
                    process.kill()
                process.communicate()
        self.fail("it never listened")

    def send(self, process, port):
        import smtplib

        def listens():
            try:
                socket.create_connection(("localhost", port)).close()
                return True
            except OSError:
                return process.poll() is not None

        until(listens, lambda: time.sleep(0.01))
        if process.poll() is not None:
            return False
        with smtplib.SMTP("localhost", port, timeout=DEADLINE) as client:
            self.assertEqual(client.sendmail("a@b", ["c@d"], b"Subject: hello\r\n\r\ntext\r\n"), {})
        return True


if __name__ == "__main__":
    unittest.main()
