#!/usr/bin/env python3
"""Uploads a file to bigupd: client.py http://HOST:8888 FILE [NAME]. Run it again to resume. Needs no packages.

Environment: BIGUP_TOKEN, and BIGUP_SLICE_SIZE in bytes. Numbers in comments are rules of docs/http.md, all but 12."""
import base64, hashlib, http.client, json, os, platform, random, sys, time
from urllib.parse import urlencode, urlsplit

url, file, token = urlsplit(sys.argv[1]), open(sys.argv[2], "rb"), os.environ.get("BIGUP_TOKEN")
server = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[url.scheme](url.netloc, timeout=90)
always = {"Authorization": f"Bearer {token}"} if token else {"Sec-Bigup-Client": "py"}
size, slice_size = os.path.getsize(file.fileno()), int(os.environ.get("BIGUP_SLICE_SIZE", 8 << 20))
sent, merged, progress = 0, -1, time.monotonic()


def source():
    """A value that stands for the bytes of the file (1)."""
    s = os.fstat(file.fileno())
    about = (platform.node(), os.path.realpath(file.name), s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    return hashlib.sha256(repr(about).encode()).hexdigest()


def call(body=None, headers={}, **query):
    """The JSON of the response. None: the upload is not as it was, ask again (7). Other failures end the program."""
    path = f"{url.path.rstrip('/')}/big_file_upload?{urlencode({**of, **query})}"
    for attempt in range(1 << 20):
        status, after = 0, ""
        try:
            server.request("POST" if body else "GET", path, body, {**always, **headers})  # follows no redirect (11)
            response = server.getresponse()
            status, after = response.status, response.headers.get("Retry-After", "")
            said = json.load(response)
        except (OSError, ValueError, http.client.HTTPException) as failure:
            server.close()  # the next request connects again
            said = {"message": f"{failure} (HTTP status {status})"}
        if status == 200 and "status" in said: return said  # (6)
        passes = status < 300 or status in (408, 425, 429, 500, 502, 503, 504) or (status == 507 and after)
        if said.get("error") not in ("busy", "damaged") and not passes:
            if body and status in (404, 409): return None
            sys.exit(said["message"])
        if time.monotonic() - progress > 600: sys.exit(f"no progress for 10 minutes: {said.get('message')}")  # (9)
        time.sleep(max(min(10, 0.2 * 2 ** min(attempt, 6)) * random.uniform(0.5, 1), int(after or 0)))  # (8)


of = {"file_name": (sys.argv[3:] or [os.path.basename(file.name)])[0], "source": source()}
while not (upload := call(file_size=size, slice_size=slice_size, ranges=1, wait=25))["is_uploaded"]:
    if upload.get("compare"): sys.exit("the server holds slices of another source: resume with bigup-cli")  # (4)
    if upload["curr_merge_slice_id"] > merged: merged, progress = upload["curr_merge_slice_id"], time.monotonic()
    if time.monotonic() - progress > 600: sys.exit(f"no progress for 10 minutes: {upload.get('last_error')}")  # (9)
    slice_size, held = upload["slice_size"], upload["slice_ranges_uploaded"]  # the upload keeps its cut (3)
    for i in sorted(set(range(upload["slice_num"])).difference(*(range(a, b + 1) for a, b in held))):
        file.seek(i * slice_size)
        body = file.read(slice_size)
        if source() != of["source"]: sys.exit("the file changed while it was sent")  # (2)
        sha256 = {"Content-Digest": f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"}  # (5)
        if not call(body, sha256, slice_id=i, slice_size=len(body), offset=i * slice_size): break
        sent, progress = sent + 1, time.monotonic()
    time.sleep(0.2)
if not upload.get("same_source") or upload["file_size"] != size:  # (10)
    sys.exit(f"a file of this name exists: compare its BLAKE3 digest, {upload.get('file_digest')}")
print(f"{sent} slices sent, {upload['file_digest']}  {of['file_name']}")
