import contextlib
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server(ThreadingHTTPServer):
    """Serves a folder on 127.0.0.1.

    Attributes:
        requests: Paths requested so far.
        contents: Content by path, in place of the folder's.
        url: Address of the folder.
    """

    def __init__(self, folder):
        self.folder = folder
        self.requests = []
        self.contents = {}
        super().__init__(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server_port}'


class Handler(SimpleHTTPRequestHandler):
    def __init__(self, request, address, server):
        super().__init__(request, address, server, directory=server.folder)

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path in self.server.contents:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.contents[self.path])
        elif self.path.startswith('/truncated/'):
            self.send_response(200)
            self.send_header('Content-Length', '1000')
            self.end_headers()
            self.wfile.write(bytes(10))
        elif self.path.startswith('/stalled/'):
            with contextlib.suppress(TimeoutError):
                self.server.released.wait(20)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path) as server:
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def served(server):
    """URL of a server of the folder."""
    return server.url
