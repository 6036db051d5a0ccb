"""An S3 server on a port of 127.0.0.1: moto's, one request after the other.

By itself moto looks whether an object is there, and then writes, in a thread a request.  S3 does
both at once, and so does this.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def server(port: int = 0) -> Iterator[str]:
    """Run it; give its address."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_):
            pass

    moto, one = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def app(environ, start_response):
        with one:
            return list(moto(environ, start_response))

    running = make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def make(bucket: str) -> None:
    """Make a bucket on the server that the environment names."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # they know the address of the server before
    with suppress(FileExistsError):  # one server of a process remembers what another had
        s3fs.S3FileSystem().mkdir(bucket)
