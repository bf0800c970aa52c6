"""A bucket that speaks enough of S3 for an upload: whole objects, uploads in parts, and refusals as scripted."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Bucket:
    """`objects`: what can be read, by `bucket/key`. `refuse`: statuses of the next writes. `puts`: keys in order."""

    def __init__(self):
        bucket = self
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.puts: list[str] = []
        self.refuse: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body=b"", **headers):
                self.send_response(status)
                for name, value in ({"content-length": str(len(body))} | headers).items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def asked(self):
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                return unquote(url.path).lstrip("/"), parse_qs(url.query, keep_blank_values=True), body

            def do_GET(self):
                key, _, _ = self.asked()
                if key in bucket.objects:
                    body = bucket.objects[key]
                    self.answer(200, body, etag='"e"', last_modified="Tue, 03 Nov 2026 12:00:00 GMT")
                else:
                    self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")

            def do_HEAD(self):
                self.do_GET()

            def do_PUT(self):
                key, query, body = self.asked()
                if bucket.refuse:
                    self.answer(bucket.refuse.pop(0), b"<Error><Code>AccessDenied</Code></Error>")
                elif "partNumber" in query:
                    bucket.parts[key][int(query["partNumber"][0])] = body
                    self.answer(200, etag=f'"p{query["partNumber"][0]}"')
                else:
                    bucket.objects[key] = body
                    bucket.puts.append(key)
                    self.answer(200, etag='"e"')

            def do_POST(self):
                key, query, body = self.asked()
                if "uploads" in query:
                    bucket.parts[key] = {}
                    self.answer(200, _xml("InitiateMultipartUploadResult", key))
                    return
                assert len(re.findall(rb"<Part>", body)) == len(bucket.parts[key])
                bucket.objects[key] = b"".join(part for _, part in sorted(bucket.parts.pop(key).items()))
                bucket.puts.append(key)
                self.answer(200, _xml("CompleteMultipartUploadResult", key))

            def do_DELETE(self):
                key, _, _ = self.asked()
                bucket.parts.pop(key, None)
                self.answer(204)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.environ = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.server.server_port}", "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-1",
        }  # fmt: skip
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _xml(name, key):
    bucket, _, rest = key.partition("/")
    told = f"<Bucket>{bucket}</Bucket><Key>{rest}</Key><UploadId>u1</UploadId><ETag>e</ETag><Location>l</Location>"
    return f"<{name}>{told}</{name}>".encode()
