# SPDX-License-Identifier: GPL-2.0
"""VICI, the protocol to configure and to query strongSwan. The program swanctl speaks it,
too, but starting a program takes long in an emulated machine.

A message is a dict whose values are dicts, lists of strings, or strings."""
import socket
import struct

from .wait import TIMEOUT

REQUEST, RESPONSE, _, REGISTER, UNREGISTER, CONFIRM, _, EVENT = range(8)
SECTION, SECTION_END, VALUE, LIST, ITEM, LIST_END = range(1, 7)


def _name(text):
    return struct.pack("B", len(text)) + text.encode()


def _value(text):
    return struct.pack(">H", len(text)) + text.encode()


def encode(message):
    data = b""
    for name, value in message.items():
        if isinstance(value, dict):
            data += bytes([SECTION]) + _name(name) + encode(value) + bytes([SECTION_END])
        elif isinstance(value, list):
            data += bytes([LIST]) + _name(name) + b"".join(
                bytes([ITEM]) + _value(item) for item in value) + bytes([LIST_END])
        else:
            data += bytes([VALUE]) + _name(name) + _value(value)
    return data


def decode(data):
    at = 0

    def text(form):
        nonlocal at
        size, = struct.unpack_from(form, data, at)
        at += struct.calcsize(form) + size
        return data[at - size:at].decode(errors="replace")

    outer, inner = [], {}
    while at < len(data):
        kind = data[at]
        at += 1
        if kind == SECTION:
            outer.append(inner)
            inner = inner.setdefault(text("B"), {})
        elif kind == SECTION_END:
            inner = outer.pop()
        elif kind == VALUE:
            name = text("B")
            inner[name] = text(">H")
        elif kind == LIST:
            items = inner[text("B")] = []
        elif kind == ITEM:
            items.append(text(">H"))
    return inner


class Vici:
    """A connection to a daemon's socket"""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(4 * TIMEOUT)
        self.sock.connect(str(path))

    def _send(self, kind, name, message=b""):
        packet = bytes([kind]) + _name(name) + message
        self.sock.sendall(struct.pack(">I", len(packet)) + packet)

    def _receive(self):
        """Returns the next packet: its kind, and the rest."""
        size, = struct.unpack(">I", self.sock.recv(4, socket.MSG_WAITALL))
        packet = self.sock.recv(size, socket.MSG_WAITALL)
        return packet[0], packet[1:]

    def ask(self, command, message={}):
        """Returns the daemon's answer. Fails if the command failed."""
        self._send(REQUEST, command, encode(message))
        kind, answer = self._receive()
        answer = decode(answer)
        if kind != RESPONSE or answer.get("success", "yes") != "yes":
            raise AssertionError(f"{command} {message}: {answer.get('errmsg')}")
        return answer

    def list(self, command, event):
        """Returns the events that the daemon sends as an answer."""
        self._send(REGISTER, event)
        assert self._receive()[0] == CONFIRM, event
        self._send(REQUEST, command)
        found = []
        while (packet := self._receive())[0] == EVENT:
            found.append(decode(packet[1][1 + len(event):]))
        assert packet[0] == RESPONSE, command
        self._send(UNREGISTER, event)
        assert self._receive()[0] == CONFIRM, event
        return found
