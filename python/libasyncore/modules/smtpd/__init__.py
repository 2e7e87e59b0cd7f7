"""An SMTP server: the smtpd module that Python had until 3.11, on asyncore and asynchat.

SMTPServer listens and makes an SMTPChannel of each client; subclass it and override process_message. RFC 5321, and the
extensions SIZE (RFC 1870), 8BITMIME (RFC 6152) and SMTPUTF8 (RFC 6531). `python -m smtpd --help` tells how to run one.

idle_timeout, an attribute of servers and channels, is new: seconds of silence after which a client is sent away. It is
None, for ever, unless it is set.
"""
import asynchat
import asyncore
import codecs as _codecs
import collections
import errno
import getopt
import os
import socket
import sys
import time
from email._header_value_parser import get_addr_spec, get_angle_addr
from email.errors import HeaderParseError as _HeaderParseError
from warnings import warn

__libasyncore__ = "0.1.0"
__all__ = ["SMTPChannel", "SMTPServer", "DebuggingServer", "PureProxy"]

program = sys.argv[0] if sys.argv else ""
__version__ = "Python SMTP proxy version 0.3"

NEWLINE = "\n"
COMMASPACE = ", "
DATA_SIZE_DEFAULT = 33554432


class Devnull:
    """A stream that keeps nothing."""

    def write(self, msg):
        """Forgets it."""

    def flush(self):
        """Nothing is left to be written."""


DEBUGSTREAM = Devnull()

_COMMANDS = "Supported commands: EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY"
_SYNTAX = {
    "EHLO": "EHLO hostname",
    "HELO": "HELO hostname",
    "MAIL": "MAIL FROM: <address>",
    "RCPT": "RCPT TO: <address>",
    "DATA": "DATA",
    "RSET": "RSET",
    "NOOP": "NOOP",
    "QUIT": "QUIT",
    "VRFY": "VRFY <address>",
}


def _debug(*words):
    print(*words, file=DEBUGSTREAM)


def _renamed(old, new):
    """A property for the name that an attribute had once."""

    def get(self):
        warn("Access to __%s attribute on SMTPChannel is deprecated, use '%s' instead" % (old, new),
             DeprecationWarning, 2)
        return getattr(self, new)

    def set(self, value):
        warn("Setting __%s attribute on SMTPChannel is deprecated, set '%s' instead" % (old, new),
             DeprecationWarning, 2)
        setattr(self, new, value)

    return property(get, set)


def _check(enable_SMTPUTF8, decode_data):
    if enable_SMTPUTF8 and decode_data:
        raise ValueError("decode_data and enable_SMTPUTF8 cannot be set to True at the same time")


class SMTPChannel(asynchat.async_chat):
    """The conversation with one client. A method smtp_XXX(self, arg) answers the command XXX."""

    COMMAND = 0
    DATA = 1

    command_size_limit = 512
    command_size_limits = collections.defaultdict(lambda size=command_size_limit: size)

    idle_timeout = None  # seconds; None: the server's

    @property
    def max_command_size_limit(self):
        """The longest line that any command may have."""
        try:
            return max(self.command_size_limits.values())
        except ValueError:
            return self.command_size_limit

    def __init__(self, server, conn, addr, data_size_limit=DATA_SIZE_DEFAULT, map=None, enable_SMTPUTF8=False,
                 decode_data=False):
        asynchat.async_chat.__init__(self, conn, map=map)
        self.smtp_server = server
        self.conn = conn
        self.addr = addr
        self.data_size_limit = data_size_limit
        self.enable_SMTPUTF8 = enable_SMTPUTF8
        self._decode_data = decode_data
        _check(enable_SMTPUTF8, decode_data)
        if decode_data:
            self._emptystring, self._linesep, self._dotsep, self._newline = "", "\r\n", ".", NEWLINE
        else:
            self._emptystring, self._linesep, self._dotsep, self._newline = b"", b"\r\n", b".", b"\n"
        self._set_rset_state()
        self.seen_greeting = ""
        self.extended_smtp = False
        self.command_size_limits = self.command_size_limits.copy()  # another client's EHLO is not ours
        self.command_size_limits.clear()
        self.fqdn = socket.getfqdn()
        try:
            self.peer = conn.getpeername()
        except OSError as error:
            self.close()  # the client is gone already
            if error.errno != errno.ENOTCONN:
                raise
            return
        timeout = self.idle_timeout or getattr(server, "idle_timeout", None)
        if timeout:
            self.set_idle_timeout(timeout)
        _debug("Peer:", repr(self.peer))
        self.push("220 %s %s" % (self.fqdn, __version__))

    def _set_post_data_state(self):
        """What a message leaves: no transaction is under way."""
        self.smtp_state = self.COMMAND
        self.mailfrom = None
        self.rcpttos = []
        self.require_SMTPUTF8 = False
        self.num_bytes = 0
        self.set_terminator(b"\r\n")

    def _set_rset_state(self):
        """As at the beginning, but for the greeting."""
        self._set_post_data_state()
        self.received_data = ""
        self.received_lines = []
        self._decoder = None

    _SMTPChannel__server = _renamed("server", "smtp_server")
    _SMTPChannel__line = _renamed("line", "received_lines")
    _SMTPChannel__state = _renamed("state", "smtp_state")
    _SMTPChannel__greeting = _renamed("greeting", "seen_greeting")
    _SMTPChannel__mailfrom = _renamed("mailfrom", "mailfrom")
    _SMTPChannel__rcpttos = _renamed("rcpttos", "rcpttos")
    _SMTPChannel__data = _renamed("data", "received_data")
    _SMTPChannel__fqdn = _renamed("fqdn", "fqdn")
    _SMTPChannel__peer = _renamed("peer", "peer")
    _SMTPChannel__conn = _renamed("conn", "conn")
    _SMTPChannel__addr = _renamed("addr", "addr")

    def push(self, msg):
        """Sends one line."""
        encoding = "utf-8" if self.require_SMTPUTF8 else "ascii"
        asynchat.async_chat.push(self, (msg + "\r\n").encode(encoding, "backslashreplace"))

    def _asyncore_expired(self):
        """The idle timeout: says so, and closes."""
        self.push("421 Error: timeout")
        self.handle_close()

    # -- input

    def collect_incoming_data(self, data):
        """Part of a line, or of a message. What is too long is not kept."""
        limit = None
        if self.smtp_state == self.COMMAND:
            limit = self.max_command_size_limit
        elif self.smtp_state == self.DATA:
            limit = self.data_size_limit
        if limit:
            if self.num_bytes > limit:
                return
            self.num_bytes += len(data)
        self.received_lines.append(self._decoded(data) if self._decode_data else data)

    def _decoded(self, data):
        """A character may come in two pieces."""
        if self._decoder is None:
            self._decoder = _codecs.getincrementaldecoder("utf-8")()
        return self._decoder.decode(data)

    def found_terminator(self):
        """A line, or a message, is complete."""
        line = self._emptystring.join(self.received_lines)
        _debug("Data:", repr(line))
        self.received_lines = []
        decoder, self._decoder = self._decoder, None
        if self.smtp_state == self.COMMAND:
            size, self.num_bytes = self.num_bytes, 0
            try:
                if decoder is not None:
                    decoder.decode(b"", True)
                self._command(line if self._decode_data else line.decode("utf-8"), size)
            except UnicodeDecodeError:
                self.push("500 Error: bad syntax")
        elif self.smtp_state == self.DATA:
            if decoder is not None:
                line += decoder.decode(b"", True)
            self._message(line)
        else:
            self.push("451 Internal confusion")
            self.num_bytes = 0

    def _command(self, line, size):
        if not line:
            self.push("500 Error: bad syntax")
            return
        command, space, arg = line.partition(" ")
        command = command.upper()
        arg = arg.strip() if space else None
        if size > (self.command_size_limits[command] if self.extended_smtp else self.command_size_limit):
            self.push("500 Error: line too long")
            return
        method = getattr(self, "smtp_" + command, None)
        if method is None:
            self.push('500 Error: command "%s" not recognized' % command)
            return
        method(arg)

    def _message(self, text):
        if self.data_size_limit and self.num_bytes > self.data_size_limit:
            self._set_post_data_state()
            self.push("552 Error: Too much mail data")
            return
        lines = []
        for line in text.split(self._linesep):  # dots at the beginning of a line came doubled
            lines.append(line[1:] if line and line[:1] == self._dotsep else line)
        self.received_data = self._newline.join(lines)
        args = (self.peer, self.mailfrom, self.rcpttos, self.received_data)
        kwargs = {}
        if not self._decode_data:
            kwargs = {"mail_options": self.mail_options, "rcpt_options": self.rcpt_options}
        status = self.smtp_server.process_message(*args, **kwargs)
        self._set_post_data_state()
        self.push(status or "250 OK")

    # -- commands

    def smtp_HELO(self, arg):
        """Hello, without extensions."""
        if not arg:
            self.push("501 Syntax: HELO hostname")
        elif self.seen_greeting:
            self.push("503 Duplicate HELO/EHLO")
        else:
            self._set_rset_state()
            self.seen_greeting = arg
            self.push("250 %s" % self.fqdn)

    def smtp_EHLO(self, arg):
        """Hello, with extensions."""
        if not arg:
            self.push("501 Syntax: EHLO hostname")
            return
        if self.seen_greeting:
            self.push("503 Duplicate HELO/EHLO")
            return
        self._set_rset_state()
        self.seen_greeting = arg
        self.extended_smtp = True
        self.push("250-%s" % self.fqdn)
        if self.data_size_limit:
            self.push("250-SIZE %s" % self.data_size_limit)
            self.command_size_limits["MAIL"] += 26
        if not self._decode_data:
            self.push("250-8BITMIME")
        if self.enable_SMTPUTF8:
            self.push("250-SMTPUTF8")
            self.command_size_limits["MAIL"] += 10
        self.push("250 HELP")

    def smtp_NOOP(self, arg):
        """Nothing."""
        self.push("501 Syntax: NOOP" if arg else "250 OK")

    def smtp_QUIT(self, arg):
        """Good bye."""
        self.push("221 Bye")
        self.close_when_done()

    def smtp_HELP(self, arg):
        """What there is, and how it is written."""
        if not arg:
            self.push("250 " + _COMMANDS)
        elif arg.upper() in _SYNTAX:
            self.push("250 " + self._syntax(arg.upper()))
        else:
            self.push("501 " + _COMMANDS)

    def smtp_VRFY(self, arg):
        """Whether a mailbox exists, which is not told."""
        address = None
        if arg:
            try:
                address, _ = self._getaddr(arg)
            except _HeaderParseError:
                pass
            if address:
                self.push("252 Cannot VRFY user, but will accept message and attempt delivery")
            else:
                self.push("502 Could not VRFY %s" % arg)
        else:
            self.push("501 Syntax: VRFY <address>")

    def _syntax(self, command):
        text = "Syntax: " + _SYNTAX[command]
        if self.extended_smtp and command in ("MAIL", "RCPT"):
            text += " [SP <mail-parameters>]"
        return text

    def _strip_command_keyword(self, keyword, arg):
        """What follows "FROM:" or "TO:"; nothing if that is not there."""
        if arg[:len(keyword)].upper() == keyword:
            return arg[len(keyword):].strip()
        return ""

    def _getaddr(self, arg):
        """The address, and what follows it."""
        if not arg:
            return "", ""
        parse = get_angle_addr if arg.lstrip().startswith("<") else get_addr_spec
        address, rest = parse(arg)
        if not address:
            return address, rest
        return address.addr_spec, rest

    def _getparams(self, params):
        """A dict of NAME=value, NAME alone is True; None if one is malformed."""
        found = {}
        for param in params:
            name, equals, value = param.partition("=")
            if not name.isalnum() or equals and not value:
                return None
            found[name] = value if equals else True
        return found

    def _address(self, keyword, arg):
        """The address and the parameters of MAIL and RCPT, or None if they are malformed."""
        try:
            address, params = self._getaddr(self._strip_command_keyword(keyword, arg or ""))
        except _HeaderParseError:
            return None
        if not address or params and not self.extended_smtp:
            return None
        return address, params

    def smtp_MAIL(self, arg):
        """Begins a message: its sender."""
        if not self.seen_greeting:
            self.push("503 Error: send HELO first")
            return
        _debug("===> MAIL", arg)
        pair = self._address("FROM:", arg)
        if pair is None:
            self.push("501 " + self._syntax("MAIL"))
            return
        if self.mailfrom:
            self.push("503 Error: nested MAIL command")
            return
        self.mail_options = pair[1].upper().split()
        refusal = self._mail_parameters(self._getparams(self.mail_options))
        if refusal is not None:
            self.push(refusal)
            return
        self.mailfrom = pair[0]
        _debug("sender:", self.mailfrom)
        self.push("250 OK")

    def _mail_parameters(self, params):
        """Takes the parameters of MAIL. The answer if they do not do, else None."""
        if params is None:
            return "501 " + self._syntax("MAIL")
        if not self._decode_data:
            body = params.pop("BODY", "7BIT")
            if body not in ("7BIT", "8BITMIME"):
                return "501 Error: BODY can only be one of 7BIT, 8BITMIME"
        if self.enable_SMTPUTF8:
            smtputf8 = params.pop("SMTPUTF8", False)
            if smtputf8 is True:
                self.require_SMTPUTF8 = True
            elif smtputf8 is not False:
                return "501 Error: SMTPUTF8 takes no arguments"
        size = params.pop("SIZE", None)
        if size:
            if size is True or not size.isdigit():
                return "501 " + self._syntax("MAIL")
            if self.data_size_limit and int(size) > self.data_size_limit:
                return "552 Error: message size exceeds fixed maximum message size"
        if params:
            return "555 MAIL FROM parameters not recognized or not implemented"
        return None

    def smtp_RCPT(self, arg):
        """One more recipient."""
        if not self.seen_greeting:
            self.push("503 Error: send HELO first")
            return
        _debug("===> RCPT", arg)
        if not self.mailfrom:
            self.push("503 Error: need MAIL command")
            return
        pair = self._address("TO:", arg)
        if pair is None:
            self.push("501 " + self._syntax("RCPT"))
            return
        self.rcpt_options = pair[1].upper().split()
        params = self._getparams(self.rcpt_options)
        if params is None:
            self.push("501 " + self._syntax("RCPT"))
        elif params:
            self.push("555 RCPT TO parameters not recognized or not implemented")
        else:
            self.rcpttos.append(pair[0])
            _debug("recips:", self.rcpttos)
            self.push("250 OK")

    def smtp_RSET(self, arg):
        """Forgets the message."""
        if arg:
            self.push("501 Syntax: RSET")
            return
        self._set_rset_state()
        self.push("250 OK")

    def smtp_DATA(self, arg):
        """The message itself follows."""
        if not self.seen_greeting:
            self.push("503 Error: send HELO first")
        elif not self.rcpttos:
            self.push("503 Error: need RCPT command")
        elif arg:
            self.push("501 Syntax: DATA")
        else:
            self.smtp_state = self.DATA
            self.set_terminator(b"\r\n.\r\n")
            self.push("354 End data with <CR><LF>.<CR><LF>")

    def smtp_EXPN(self, arg):
        """Who is on a list, which is not told."""
        self.push("502 EXPN not implemented")


class SMTPServer(asyncore.dispatcher):
    """Listens for SMTP clients. Override process_message.

    localaddr, remoteaddr: (host, port) to listen on, and of the server to relay to.
    data_size_limit: of a message, in bytes; None or 0 is no limit.
    enable_SMTPUTF8: addresses and headers may be UTF-8; not together with decode_data.
    decode_data: messages come as str (UTF-8) instead of bytes.
    """

    channel_class = SMTPChannel
    idle_timeout = None  # seconds; None: never

    def __init__(self, localaddr, remoteaddr, data_size_limit=DATA_SIZE_DEFAULT, map=None, enable_SMTPUTF8=False,
                 decode_data=False):
        self._localaddr = localaddr
        self._remoteaddr = remoteaddr
        self.data_size_limit = data_size_limit
        self.enable_SMTPUTF8 = enable_SMTPUTF8
        self._decode_data = decode_data
        _check(enable_SMTPUTF8, decode_data)
        asyncore.dispatcher.__init__(self, map=map)
        try:
            family, kind = socket.getaddrinfo(*localaddr, type=socket.SOCK_STREAM)[0][:2]
            self.create_socket(family, kind)
            self.set_reuse_addr()
            self.bind(localaddr)
            self.listen(5)
        except:
            self.close()
            raise
        _debug("%s started at %s\n\tLocal addr: %s\n\tRemote addr:%s"
               % (type(self).__name__, time.ctime(time.time()), localaddr, remoteaddr))

    def handle_accepted(self, conn, addr):
        """A client came: makes a channel of it."""
        _debug("Incoming connection from %s" % repr(addr))
        self.channel_class(self, conn, addr, self.data_size_limit, self._map, self.enable_SMTPUTF8, self._decode_data)

    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        """A message came. To be overridden.

        peer: the client's address; mailfrom: the sender; rcpttos: the recipients; data: headers, an empty line, text,
        with lines ended by "\\n", as bytes, or as str with decode_data. Without decode_data there are mail_options and
        rcpt_options in kwargs. Returns the answer, such as "451 Try later"; None is "250 OK".
        """
        raise NotImplementedError


class DebuggingServer(SMTPServer):
    """Prints the messages."""

    def _print_message_content(self, peer, data):
        headers = True
        for line in data.splitlines():
            if headers and not line:
                peerheader = "X-Peer: " + peer[0]
                print(peerheader if isinstance(data, str) else repr(peerheader.encode("utf-8")))
                headers = False
            print(line if isinstance(data, str) else repr(line))

    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        print("---------- MESSAGE FOLLOWS ----------")
        if kwargs:
            if kwargs.get("mail_options"):
                print("mail options: %s" % kwargs["mail_options"])
            if kwargs.get("rcpt_options"):
                print("rcpt options: %s\n" % kwargs["rcpt_options"])
        self._print_message_content(peer, data)
        print("------------ END MESSAGE ------------")


class PureProxy(SMTPServer):
    """Relays the messages to remoteaddr. Left open to others, it is an open relay."""

    def __init__(self, *args, **kwargs):
        if kwargs.get("enable_SMTPUTF8"):
            raise ValueError("PureProxy does not support SMTPUTF8.")
        super().__init__(*args, **kwargs)

    def process_message(self, peer, mailfrom, rcpttos, data, **kwargs):
        if isinstance(data, str):
            separator, header = "\n", "X-Peer: %s" % peer[0]
        else:
            separator, header = b"\n", b"X-Peer: %s" % str(peer[0]).encode("ascii", "backslashreplace")
        lines = data.split(separator)
        at = 0
        while at < len(lines) and lines[at]:
            at += 1
        lines.insert(at, header)
        refused = self._deliver(mailfrom, rcpttos, separator.join(lines))
        _debug("we got some refusals:", refused)

    def _deliver(self, mailfrom, rcpttos, data):
        """Hands a message on. Who was refused, and why."""
        import smtplib
        try:
            server = smtplib.SMTP()
            server.connect(self._remoteaddr[0], self._remoteaddr[1])
            try:
                return server.sendmail(mailfrom, rcpttos, data)
            finally:
                server.quit()
        except smtplib.SMTPRecipientsRefused as error:
            _debug("got SMTPRecipientsRefused")
            return error.recipients
        except (OSError, smtplib.SMTPException) as error:
            _debug("got", error.__class__)
            code = getattr(error, "smtp_code", -1)
            text = getattr(error, "smtp_error", "ignore")
            return dict.fromkeys(rcpttos, (code, text))


class Options:
    """What the command line says."""

    setuid = True
    classname = "PureProxy"
    size_limit = None
    enable_SMTPUTF8 = False
    _idle_timeout = None


_USAGE = """\
usage: %(program)s [options] [localhost:localport [remotehost:remoteport]]

An SMTP server (RFC 5321, with SIZE, 8BITMIME and SMTPUTF8). It listens on localhost:8025 and hands messages on to
localhost:25 unless told otherwise.

  -n, --nosetuid         stay who you are; otherwise it becomes the user nobody, which takes root
  -c, --class NAME       what to do with messages: PureProxy (the default), DebuggingServer, or module.Class
  -s, --size LIMIT       refuse longer messages, in bytes; %(size)d unless given
  -u, --smtputf8         take addresses and headers in UTF-8
  -t, --timeout SECONDS  send clients away that are silent for so long; never unless given
  -d, --debug            tell on stderr what is going on
  -V, --version          print the version
  -h, --help             print this
"""


def usage(code, msg=""):
    """Prints how the program is used, and `msg`, and exits with `code`."""
    print(_USAGE % {"program": program, "size": DATA_SIZE_DEFAULT}, file=sys.stderr)
    if msg:
        print(msg, file=sys.stderr)
    sys.exit(code)


def _spec(text, what):
    """HOST:PORT."""
    host, colon, port = text.rpartition(":")
    if not colon:
        usage(1, "Bad %s spec: %s" % (what, text))
    try:
        return host, int(port)
    except ValueError:
        usage(1, "Bad %s port: %s" % (what, text))


def parseargs():
    """Options of sys.argv."""
    global DEBUGSTREAM
    try:
        opts, args = getopt.getopt(sys.argv[1:], "nVhc:s:dut:", ["class=", "nosetuid", "version", "help", "size=",
                                                                 "debug", "smtputf8", "timeout="])
    except getopt.error as error:
        usage(1, error)
    options = Options()
    for opt, arg in opts:
        if opt in ("-h", "--help"):
            usage(0)
        elif opt in ("-V", "--version"):
            print(__version__)
            sys.exit(0)
        elif opt in ("-n", "--nosetuid"):
            options.setuid = False
        elif opt in ("-c", "--class"):
            options.classname = arg
        elif opt in ("-d", "--debug"):
            DEBUGSTREAM = sys.stderr
        elif opt in ("-u", "--smtputf8"):
            options.enable_SMTPUTF8 = True
        elif opt in ("-s", "--size"):
            try:
                options.size_limit = int(arg)
            except ValueError:
                options.size_limit = -1
            if options.size_limit < 0:
                print("Invalid size: " + arg, file=sys.stderr)
                sys.exit(1)
        elif opt in ("-t", "--timeout"):
            options._idle_timeout = _positive(arg)
    if len(args) > 2:
        usage(1, "Invalid arguments: %s" % COMMASPACE.join(args))
    options.localhost, options.localport = _spec(args[0] if args else "localhost:8025", "local")
    options.remotehost, options.remoteport = _spec(args[1] if len(args) > 1 else "localhost:25", "remote")
    return options


def _positive(text):
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        print("Invalid timeout: " + text, file=sys.stderr)
        sys.exit(1)
    return seconds


def _main():
    """`python -m smtpd`."""
    global program
    program = "smtpd"
    options = parseargs()
    module, dot, name = options.classname.rpartition(".")
    try:
        scope = __import__(module, fromlist=[name]) if dot else sys.modules[__name__]
        server_class = getattr(scope, name)
    except (ImportError, AttributeError):
        print("%s: no such class: %s" % (program, options.classname), file=sys.stderr)
        sys.exit(1)
    local, remote = (options.localhost, options.localport), (options.remotehost, options.remoteport)
    try:
        server = server_class(local, remote, options.size_limit, enable_SMTPUTF8=options.enable_SMTPUTF8)
    except (OSError, OverflowError) as error:  # the latter: of a port
        why = getattr(error, "strerror", None) or error
        print("%s: cannot listen on %s:%d: %s" % ((program,) + local + (why,)), file=sys.stderr)
        sys.exit(1)
    server.idle_timeout = options._idle_timeout
    if options.setuid:
        _become_nobody()
    try:
        asyncore.loop()
    except KeyboardInterrupt:
        pass


def _become_nobody():
    try:
        import pwd
    except ImportError:
        print('Cannot import module "pwd"; try running with -n option.', file=sys.stderr)
        sys.exit(1)
    try:
        os.setuid(pwd.getpwnam("nobody")[2])
    except PermissionError:
        print('Cannot setuid "nobody"; try running with -n option.', file=sys.stderr)
        sys.exit(1)
