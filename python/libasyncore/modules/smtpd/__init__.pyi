import asynchat as asynchat
import asyncore as asyncore
from typing import Any, DefaultDict, Dict, List, NoReturn, Optional, Tuple, Type

__all__ = ["SMTPChannel", "SMTPServer", "DebuggingServer", "PureProxy"]

__libasyncore__: str
__version__: str
program: str
DEBUGSTREAM: Any
NEWLINE: str
COMMASPACE: str
DATA_SIZE_DEFAULT: int

_Address = Tuple[str, int]

class SMTPChannel(asynchat.async_chat):
    COMMAND: int
    DATA: int
    command_size_limit: int
    command_size_limits: DefaultDict[str, int]
    idle_timeout: Optional[float]
    smtp_server: SMTPServer
    conn: Any
    peer: Any
    received_lines: List[Any]
    smtp_state: int
    seen_greeting: str
    mailfrom: Optional[str]
    rcpttos: List[str]
    received_data: Any
    fqdn: str
    num_bytes: int
    data_size_limit: Optional[int]
    enable_SMTPUTF8: bool
    extended_smtp: bool
    @property
    def max_command_size_limit(self) -> int: ...
    def __init__(
        self,
        server: SMTPServer,
        conn: Any,
        addr: Any,
        data_size_limit: Optional[int] = ...,
        map: Optional[Dict[int, Any]] = ...,
        enable_SMTPUTF8: bool = ...,
        decode_data: bool = ...,
    ) -> None: ...
    def push(self, msg: str) -> None: ...  # type: ignore[override]
    def smtp_HELO(self, arg: Optional[str]) -> None: ...
    def smtp_EHLO(self, arg: Optional[str]) -> None: ...
    def smtp_NOOP(self, arg: Optional[str]) -> None: ...
    def smtp_QUIT(self, arg: Optional[str]) -> None: ...
    def smtp_HELP(self, arg: Optional[str]) -> None: ...
    def smtp_VRFY(self, arg: Optional[str]) -> None: ...
    def smtp_MAIL(self, arg: Optional[str]) -> None: ...
    def smtp_RCPT(self, arg: Optional[str]) -> None: ...
    def smtp_RSET(self, arg: Optional[str]) -> None: ...
    def smtp_DATA(self, arg: Optional[str]) -> None: ...
    def smtp_EXPN(self, arg: Optional[str]) -> None: ...

class SMTPServer(asyncore.dispatcher):
    channel_class: Type[SMTPChannel]
    idle_timeout: Optional[float]
    data_size_limit: Optional[int]
    enable_SMTPUTF8: bool
    def __init__(
        self,
        localaddr: _Address,
        remoteaddr: Optional[_Address],
        data_size_limit: Optional[int] = ...,
        map: Optional[Dict[int, Any]] = ...,
        enable_SMTPUTF8: bool = ...,
        decode_data: bool = ...,
    ) -> None: ...
    def handle_accepted(self, conn: Any, addr: Any) -> None: ...
    def process_message(
        self, peer: Any, mailfrom: str, rcpttos: List[str], data: Any, **kwargs: Any
    ) -> Optional[str]: ...

class DebuggingServer(SMTPServer): ...
class PureProxy(SMTPServer): ...

class Devnull:
    def write(self, msg: str) -> None: ...
    def flush(self) -> None: ...

class Options:
    setuid: bool
    classname: str
    size_limit: Optional[int]
    enable_SMTPUTF8: bool
    localhost: str
    localport: int
    remotehost: str
    remoteport: int

def usage(code: int, msg: object = ...) -> NoReturn: ...
def parseargs() -> Options: ...
