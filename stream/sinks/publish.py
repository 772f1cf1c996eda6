"""RTSP and RTMP: the picture published to a server."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import av

from stream.packets import Message, Packet, Start
from stream.sinks import SinkSpec
from stream.sinks.base import SinkError, same_coding
from stream.sinks.muxer import Muxer
from stream.status import State

_TIMEOUT_S = 5.0
_PORTS = {"rtsp": 554, "rtsps": 322, "rtmp": 1935, "rtmps": 443}
