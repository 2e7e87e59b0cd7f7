"""An echo server as an asyncio protocol: what bench/python measures others beside.

    protocols.py asyncio|uvloop

It listens on a free port of 127.0.0.1, prints it, with the loop that serves it, and serves until killed. Both loops
switch Nagle's delay off themselves."""

import asyncio
import sys


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, backlog=4096)
    address = server.sockets[0].getsockname()
    print("protocols.py: listening on 127.0.0.1:%d with %s" % (address[1], type(loop).__module__), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop
        uvloop.install()
    asyncio.run(main())
