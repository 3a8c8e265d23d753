"""An S3 server in memory on a free port, for the tests. Prints `HOST PORT`; ends when its standard input does.

So it cannot outlive the test process that started it, however that one ends.
"""

import logging
import sys

from moto.server import ThreadedMotoServer

logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.buffer.read()
server.stop()
