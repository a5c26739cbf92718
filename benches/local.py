"""What every benchmark with processes of its own needs: a folder that is gone afterwards, ports that are free, and patience."""

import os
import socket
import sys
import tempfile
import time


class Folder:
    """A temporary folder: its `path`, files in it, and the `log` of the processes."""

    def __init__(self, name):
        self.path = tempfile.mkdtemp(prefix=f"balancer-{name}-")
        self.log = os.path.join(self.path, "log")

    def write(self, name, text):
        path = os.path.join(self.path, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def wait_for(self, port, what):
        """Its number, once somebody listens; ends the program with the log when that takes 20 seconds."""
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return port
            except OSError:
                time.sleep(0.05)
        with open(self.log, errors="replace") as log:
            sys.exit(f"{what} does not listen on {port}:\n{log.read()[-4000:]}")


def free_ports(count):
    """Ports of this machine that were free a moment ago, no two the same."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
