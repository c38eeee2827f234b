"""What a worker does that has been taken over, without TensorFlow."""

import os
import socket
import struct
import sys
import time


def answer_raw(data: bytes) -> None:
    """Answer the server with these bytes, whatever they are."""
    with socket.socket(fileno=os.dup(int(sys.argv[1]))) as stream:
        stream.sendall(struct.pack("!QQ", 1, len(data)) + data)
    time.sleep(600)


def shout(lines: list[str]) -> None:
    """Say lines on stderr, past all logging."""
    for line in lines:
        os.write(2, f"{line}\n".encode())
