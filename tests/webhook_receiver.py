"""A receiver of webhooks that can fail as servers do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """An HTTP server. `answer` can be changed: a status, "stall", "garbage" or "hang up"."""

    def __init__(self, port=0, answer=204):
        self.answer, self.requests, self.release = answer, [], threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = receiver.answer
                receiver.requests.append((self.path, dict(self.headers), json.loads(body), answer))
                if answer == "stall":
                    receiver.release.wait()
                elif answer == "garbage":
                    self.wfile.write(b"220 this is a mail server\r\n")
                elif answer != "hang up":
                    self.send_response(answer)
                    if answer == 302:
                        self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                    self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def texts(self, answer=204):
        """Texts of the events that got this answer."""
        return [event["text"] for _, _, event, given in self.requests if given == answer]

    def close(self):
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
