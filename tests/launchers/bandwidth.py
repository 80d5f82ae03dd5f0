"""Measures the rates between this namespace and the namespace `guest`, for `bandwidth`.

usage: bandwidth.py NAME

NAME stands before each result. A connection runs for some seconds before it counts,
since a burst may pass at first.
"""

import ctypes
import os
import socket
import sys
import threading
import time

BEFORE, COUNTED = 4, 15
HEADERS = 42  # of Ethernet, IPv4 and UDP
libc = ctypes.CDLL(None, use_errno=True)


def enter(where):
    """Moves this thread into a namespace."""
    path = "/run/netns/guest" if where == "guest" else "/proc/1/ns/net"
    fd = os.open(path, os.O_RDONLY)
    if libc.setns(fd, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)


def count(receive):
    """Returns the bytes per second that `receive` gets."""
    since = time.monotonic()
    while time.monotonic() < since + BEFORE:
        receive()
    since, total = time.monotonic(), 0
    while time.monotonic() < since + COUNTED:
        total += receive()
    return total / (time.monotonic() - since)


def receiver(kind, where, address, ready, result):
    enter(where)
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, 5000))
        if kind == socket.SOCK_STREAM:
            sock.listen()
            ready.set()
            connection, _ = sock.accept()
            with connection:
                connection.settimeout(30)
                result.append(count(lambda: len(connection.recv(65536))))
        else:
            sock.settimeout(30)
            ready.set()
            result.append(count(lambda: len(sock.recv(2000)) + HEADERS))


def sender(kind, where, address, done):
    enter(where)
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.connect((address, 5000))
        while not done.is_set():
            try:
                if kind == socket.SOCK_STREAM:
                    sock.send(b"x" * 65536)
                else:
                    # more than the limit, and not as fast as the processor
                    for _ in range(10):
                        sock.send(b"x" * 1472)
                    time.sleep(0.01)
            except OSError:
                if kind == socket.SOCK_STREAM:
                    return


def main(name):
    for kind, word in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
        for to, address, source in (("guest", "10.88.0.2", "host"), ("host", "10.88.0.1", "guest")):
            ready, done, result = threading.Event(), threading.Event(), []
            receiving = threading.Thread(target=receiver, args=(kind, to, address, ready, result))
            receiving.start()
            ready.wait()
            sending = threading.Thread(target=sender, args=(kind, source, address, done))
            sending.start()
            receiving.join()
            done.set()
            sending.join()
            rate = f"{result[0] / 1024:.1f} KiB/s" if result else "no data"
            print(f"{name}: {word} to the {to}: {rate}", flush=True)


main(sys.argv[1])
