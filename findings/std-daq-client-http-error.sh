#!/usr/bin/env bash
# PSI's std_daq_client drops what a server says with any HTTP status but 200: the exception's text
# is the representation of an object of urllib3, the message in the body is lost. An error with
# status 200 keeps its message.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check std_daq_client==1.3.5 requests==2.34.2
cat > "$folder/see.py" <<'PYTHON'
import json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version

from std_daq_client import StdDaqAdminException, StdDaqClient

MESSAGE = "n_images must be at least 1"


class Refuses(BaseHTTPRequestHandler):
    status = 200

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"status": "error", "message": MESSAGE}).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


print("std_daq_client", version("std_daq_client"))
server = HTTPServer(("127.0.0.1", 0), Refuses)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = StdDaqClient(f"http://127.0.0.1:{server.server_port}")
seen = {}
for Refuses.status in (200, 400, 503):
    try:
        client.start_writer_async({"output_file": "/tmp/run.h5", "n_images": 0})
    except (RuntimeError, StdDaqAdminException) as error:
        seen[Refuses.status] = error
        print(f"HTTP {Refuses.status}: {type(error).__name__}: {str(error)[:60]}")
server.shutdown()
assert type(seen[200]) is StdDaqAdminException and str(seen[200]) == MESSAGE
assert all(type(seen[code]) is RuntimeError and MESSAGE not in str(seen[code]) for code in (400, 503))
assert "urllib3" in str(seen[400])
PYTHON
timeout 120 "$folder/venv/bin/python" "$folder/see.py" "$folder" < /dev/null
