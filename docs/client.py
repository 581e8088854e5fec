#!/usr/bin/env python3
"""Uploads a file to bigupd: client.py http://HOST:8888 FILE [NAME]. Run it again to resume. Needs no packages.

Environment: BIGUP_TOKEN, and BIGUP_SLICE_SIZE in bytes. Comments name the rules of docs/http.md.
Rule 12 is left out: it never pauses between requests, and does not say when it gives up."""
import base64, hashlib, http.client, json, os, platform, random, sys, time
from urllib.parse import urlencode
from urllib.request import HTTPErrorProcessor, Request, build_opener

PATIENCE, TEMPORARY = 600, (408, 425, 429, 500, 502, 503, 504)  # seconds without progress; statuses
TOKEN = {"Authorization": "Bearer " + os.environ["BIGUP_TOKEN"]} if "BIGUP_TOKEN" in os.environ else {}


class AsTheyCome(HTTPErrorProcessor):  # no redirect is followed (rule 11), no status is an exception
    http_response = https_response = lambda self, request, response: response


def call(query, body=None, **headers):
    """Repeats a request while its failure is temporary (rules 8 and 9). Returns the response's status and JSON."""
    url, headers = f"{sys.argv[1]}/big_file_upload?{urlencode(query)}", {"Sec-Bigup-Client": "py", **TOKEN, **headers}
    for attempt in range(1 << 20):
        status, after = 0, None
        try:
            with build_opener(AsTheyCome).open(Request(url, body, headers), timeout=90) as response:
                status, after = response.status, response.headers["Retry-After"]
                said = json.load(response)
        except (OSError, ValueError, http.client.HTTPException) as failure:
            said = {"message": f"{failure} (HTTP status {status})"}
        temporary = status in TEMPORARY or said.get("error") in ("busy", "damaged") or status == 507 and after
        if status >= 300 and not temporary or status == 200 and "status" in said:  # rule 6
            return status, said
        if time.monotonic() - progress > PATIENCE:
            sys.exit(f"gave up after {PATIENCE} s without progress: {said['message']}")
        delay = min(10, 0.2 * 2 ** min(attempt, 6)) * random.uniform(0.5, 1)
        time.sleep(max(delay, min(120, int(after or 0))))


def source_of(file):
    """Equal values stand for equal bytes (rule 1)."""
    s = os.fstat(file.fileno())
    about = (platform.node(), os.path.realpath(file.name), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return hashlib.sha256(repr(about).encode()).hexdigest()


file, progress, sent = open(sys.argv[2], "rb"), time.monotonic(), 0
size, slice_size = os.path.getsize(file.fileno()), int(os.environ.get("BIGUP_SLICE_SIZE", 8 << 20))
of = {"file_name": (sys.argv[3:] or [os.path.basename(file.name)])[0], "source": source_of(file)}
while True:
    status, upload = call({**of, "file_size": size, "slice_size": slice_size, "ranges": 1, "wait": 25})
    if status != 200 or upload.get("compare"):
        sys.exit(upload.get("message", "the server holds slices of another source: resume with bigup-cli"))  # rule 4
    if upload["is_uploaded"]:
        break
    slice_size, held = upload["slice_size"], upload["slice_ranges_uploaded"]  # the upload's own size counts (rule 3)
    for i in range(upload["slice_num"]):
        if any(first <= i <= last for first, last in held):
            continue
        file.seek(i * slice_size)
        body = file.read(slice_size)
        if source_of(file) != of["source"]:
            sys.exit("the file changed while it was sent")  # rule 2
        place = {"slice_id": i, "slice_size": len(body), "offset": i * slice_size}
        sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
        status, said = call({**of, **place}, body, **{"Content-Digest": f"sha-256=:{sha256}:"})  # rule 5
        if status in (404, 409):
            break  # the upload is not as it was: ask again (rule 7)
        if status != 200:
            sys.exit(said["message"])
        sent, progress = sent + 1, time.monotonic()
    if time.monotonic() - progress > PATIENCE:
        sys.exit(f"the server does not finish the file: {upload.get('last_error')}")
    time.sleep(0.2)
if not upload.get("same_source") or upload["file_size"] != size:  # rule 10
    sys.exit(f"a file of this name exists: compare its BLAKE3 digest, {upload.get('file_digest')}")
print(f"{sent} slices sent, {upload['file_digest']}  {of['file_name']}")
