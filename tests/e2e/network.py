"""Machines of their own for a test: network namespaces, joined by a cable.

Processes are started in one by `machine.enter` before their command. Sockets of one are handed to the test, which stays where it
is. Root makes them, or anybody where the system lets everybody have user namespaces.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading

IS_ROOT = os.geteuid() == 0


class Machine:
    """A network namespace, which is there as long as the process that holds it. That process makes its connections, too."""

    def __init__(self, enter=()):
        """Alone, or by `enter` of another: where root is nobody else, what joins two has to be of one owner."""
        own = [] if IS_ROOT or enter else ["--user", "--map-root-user"]
        self._dialler, theirs = socket.socketpair()
        self._one_at_a_time = threading.Lock()
        command = [*enter, "unshare", *own, "--net", sys.executable, __file__, str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()
        # It says so once it is there.
        if not self._dialler.recv(1):
            self.close()
            raise AssertionError(f"a network namespace takes root's rights or user namespaces: {command} failed")
        user = [] if IS_ROOT else ["--user", "--preserve-credentials"]
        self.enter = ["nsenter", f"--target={self._process.pid}", *user, "--net"]

    def run(self, *command):
        subprocess.run([*self.enter, *command], check=True)

    def connect(self, address, timeout=10, source=None, receive_buffer=None):
        """A connection from this machine, as `socket.create_connection` makes one."""
        with self._one_at_a_time:
            self._dialler.sendall(json.dumps([address, timeout, source, receive_buffer]).encode())
            _, descriptors, _, _ = socket.recv_fds(self._dialler, 1, 1)
        assert descriptors, f"the machine could not connect to {address}; its stderr tells why"
        connection = socket.socket(fileno=descriptors[0])
        connection.settimeout(timeout)
        return connection

    def close(self):
        self._dialler.close()
        self._process.wait(10)


@contextlib.contextmanager
def joined(server_address, *client_addresses):
    """Two machines with these addresses on a cable between them."""
    with contextlib.closing(Machine()) as server, contextlib.closing(Machine(() if IS_ROOT else server.enter)) as client:
        target = client.enter[1].removeprefix("--target=")
        server.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", target)
        for machine, addresses in ((server, [server_address]), (client, client_addresses)):
            machine.run("ip", "link", "set", "lo", "up")
            machine.run("ip", "link", "set", "cable", "up")
            for address in addresses:
                machine.run("ip", "address", "add", f"{address}/24", "dev", "cable")
        yield server, client


def vanish(machine, address):
    """From now on a machine neither takes nor sends anything at one of its addresses, and says so to nobody."""
    machine.run("ip", "address", "delete", f"{address}/24", "dev", "cable")


def dial(descriptor):
    """Makes the connections that are asked for, and hands them over."""
    with socket.socket(fileno=descriptor) as asked:
        asked.sendall(b"!")
        while request := asked.recv(1 << 16):
            address, timeout, source, receive_buffer = json.loads(request)
            with socket.socket() as connection:
                if receive_buffer:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                connection.settimeout(timeout)
                connection.bind((source or "0.0.0.0", 0))
                connection.connect(tuple(address))
                socket.send_fds(asked, [b"!"], [connection.fileno()])


if __name__ == "__main__":
    dial(int(sys.argv[1]))
