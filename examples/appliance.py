#!/usr/bin/env python3
"""Boots a guest from a Python program; the exit status is QEMU's.

    appliance.py PORTS QEMU [ARGS]...
    appliance.py 2222:22 qemu-system-x86_64 -m 512 disk.img

NETLAUNCH_LIBRARY names the library if the loader does not find libnetlaunch.so.0;
include/netlaunch.h says how to build it and documents its functions.
"""

import ctypes
import json
import os
import sys

OK = 1  # NETLAUNCH_OK

library = ctypes.CDLL(os.environ.get("NETLAUNCH_LIBRARY", "libnetlaunch.so.0"))
# A char * that the caller frees must stay a pointer: c_char_p would be copied to bytes at once.
String, Launch = ctypes.POINTER(ctypes.c_char), ctypes.c_void_p
library.netlaunch_last_error_message.restype = ctypes.c_char_p
library.netlaunch_string_free.argtypes = [String]
library.netlaunch_start.argtypes = [ctypes.c_char_p]
library.netlaunch_start.restype = Launch
library.netlaunch_launch_json.argtypes = [Launch]
library.netlaunch_launch_json.restype = String
library.netlaunch_next_event.argtypes = [Launch, ctypes.c_int, ctypes.POINTER(String)]
library.netlaunch_free.argtypes = [Launch]


def take(string):
    """Returns a JSON answer of the library as a value, and frees its text."""
    if not string:
        raise RuntimeError(library.netlaunch_last_error_message().decode())
    try:
        return json.loads(ctypes.cast(string, ctypes.c_char_p).value)
    finally:
        library.netlaunch_string_free(string)


def events(launch):
    """Yields the events of a launch up to its end."""
    event = String()
    while library.netlaunch_next_event(launch, -1, ctypes.byref(event)) == OK:
        yield take(event)


def main(ports, program, *args):
    qemu = {"program": program, "args": args}
    request = {"version": 1, "from_env": True, "publish": [ports], "qemu": qemu}
    launch = library.netlaunch_start(json.dumps(request).encode())
    if not launch:
        sys.exit("appliance.py: " + library.netlaunch_last_error_message().decode())
    status = 125
    try:
        (record,) = take(library.netlaunch_launch_json(launch))["launches"]
        print("launch:", json.dumps(record), flush=True)
        for event in events(launch):
            print("event:", json.dumps(event), flush=True)
            if event["event"] == "ended":
                status = event["outcome"]["status"]
    finally:
        library.netlaunch_free(launch)
    return status


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
