"""WebRTC out by WHIP, read by a browser."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from feeds import CONFIG, Feed, epoch_messages, opened
from flashes import wait_for
from playwright.sync_api import Page, sync_playwright
from servers import free_port

from stream.live.sinks import parse_sink
from stream.live.sinks.handle import SinkHandle
from stream.live.sinks.sink import SinkError
from stream.live.status import ConnectionState


class WhipServer:
    """A browser that answers WHIP: the peer that counts. Runs in the caller's thread, by `serve`."""

    _ANSWER = """async (offer) => {
      const peer = window.peer = new RTCPeerConnection();
      window.states = [];
      peer.ontrack = e => {
        const video = document.querySelector('video');
        video.srcObject = new MediaStream([e.track]);
        video.play();
      };
      peer.onconnectionstatechange = () => window.states.push(peer.connectionState);
      await peer.setRemoteDescription({type: 'offer', sdp: offer});
      await peer.setLocalDescription(await peer.createAnswer());
      while (peer.iceGatheringState !== 'complete') await new Promise(r => setTimeout(r, 20));
      return peer.localDescription.sdp;
    }"""
    _STATS = """async () => {
      let frames = 0;
      (await peer.getStats()).forEach(s => { if (s.type === 'inbound-rtp') frames = s.framesDecoded; });
      return {frames: frames, width: document.querySelector('video').videoWidth, states: window.states};
    }"""

    def __init__(self, page, token: str = "") -> None:
        self.page, self.requests = page, []
        page.set_content(
            "<style>body{margin:0}video{width:320px}</style><video muted autoplay playsinline></video>"
        )
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.requests.append("POST")
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if token and self.headers["Authorization"] != f"Bearer {token}":
                    self.send_error(401)
                    return
                answer = page.evaluate(outer._ANSWER, body).encode()
                self.send_response(201)
                self.send_header("Content-Type", "application/sdp")
                self.send_header("Location", "/whip/1")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_DELETE(self) -> None:
                outer.requests.append(f"DELETE {self.path}")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_) -> None:
                return

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self._server.timeout = 0.05
        self.host = f"127.0.0.1:{self._server.server_port}"

    def serve(self) -> None:
        self._server.handle_request()

    def stats(self) -> dict:
        self.page.wait_for_timeout(50)
        return self.page.evaluate(self._STATS)

    def close(self) -> None:
        self._server.server_close()


@pytest.fixture
def page() -> Iterator[Page]:
    arguments = [
        "--no-sandbox", "--disable-quic", "--disable-background-networking",
        "--disable-features=WebRtcHideLocalIpsWithMdns", "--autoplay-policy=no-user-gesture-required",
    ]  # fmt: skip
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser.new_page(viewport={"width": 320, "height": 180})
        browser.close()


def test_a_browser_sees_what_is_published_by_whip_and_keeps_the_connection(page):
    """The test lasts more than 15 s, after which a browser without the sender's consent gives up."""
    server = WhipServer(page, token="sesame")
    handle = SinkHandle(parse_sink(f"whip:http://sesame@{server.host}/whip", CONFIG))
    with Feed(handle, epoch_messages(50)) as feed:
        wait_for(lambda: "POST" in server.requests, tick=server.serve)
        feed.wait(lambda report: report["delivered"] > 10)
        stats = wait_for(lambda: (stats := server.stats())["frames"] > 25 * 20 and stats)
        assert stats["width"] == 320 and set(stats["states"]) == {"connecting", "connected"}
        levels = []
        while len(levels) < 200 and not (levels and min(levels) < 60 and max(levels) > 200):
            shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_GRAYSCALE)
            levels.append(shot[:170].mean())
        assert min(levels) < 60 and max(levels) > 200
        report = handle.report()
        assert report["state"] == "live" and "sesame" not in str(report)
        handle.finish()
        wait_for(lambda: "DELETE /whip/1" in server.requests, tick=server.serve)
    server.close()


def test_whip_tells_in_one_line_who_does_not_answer_or_wants_a_token(page):
    with pytest.raises(SinkError, match="nobody answers there") as error:
        opened(f"whip:http://sesame@127.0.0.1:{free_port()}/whip", *epoch_messages(1))
    assert "sesame" not in str(error.value)
    server = WhipServer(page, token="right")
    thread = threading.Thread(target=server.serve)
    server._server.timeout = 60
    thread.start()
    with pytest.raises(SinkError, match="wants a token") as error:
        opened(f"whip:http://wrong@{server.host}/whip", *epoch_messages(1))
    thread.join()
    server.close()
    assert error.value.state is ConnectionState.UNAUTHORISED and "wrong@" not in str(error.value)
