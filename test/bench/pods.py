"""Processes in containers of many pods, without the containers: usage pods.py, with one line of JSON on its input:
socket, request (hex), groups (for each container the cgroup.procs files that it is put into).

A process for each container opens a stream and holds it. Then each line `SOCKET N` makes N new processes, one after the other, in
the cgroups of the last container: each asks SOCKET on a connection of its own, has its answer and ends. One line is printed after
each: how many had an answer.
"""
import json
import os
import socket
import sys

plan = json.loads(sys.stdin.readline())
request = bytes.fromhex(plan["request"])
HEAD = 9
DATA = 0


def read(connection, size):
    found = b""
    while len(found) < size:
        chunk = connection.recv(size - len(found))
        if not chunk:
            raise EOFError
        found += chunk
    return found


def open_stream(path):
    """A connection whose stream has had its first message (RFC 9113: DATA frames before the end of the stream)."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(path)
    connection.sendall(request)
    while True:
        head = read(connection, HEAD)
        payload = read(connection, int.from_bytes(head[:3], "big"))
        if head[3] == DATA and payload:
            return connection


def enter(files):
    for file in files:
        with open(file, "w") as group:
            group.write(str(os.getpid()))


def hold(files, told, leave):
    try:
        enter(files)
        connection = open_stream(plan["socket"])
        os.write(told, b"1")
        os.read(leave, 1)
        connection.close()
    except (OSError, EOFError) as error:
        sys.stderr.write(f"{error}\n")
        os.write(told, b"0")
    finally:
        os._exit(0)


def visit(path):
    pid = os.fork()
    if pid == 0:
        try:
            open_stream(path).close()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


answers, told = os.pipe()
leave, end = os.pipe()
for files in plan["groups"]:
    if os.fork() == 0:
        os.close(end)
        hold(files, told, leave)
heard = b""
while len(heard) < len(plan["groups"]):
    heard += os.read(answers, 4096)
print(heard.count(b"1"), flush=True)
enter(plan["groups"][-1])
for line in sys.stdin:
    path, count = line.split()
    print(sum(visit(path) for _ in range(int(count))), flush=True)
os.close(end)
