"""Uploads a file by tuspy, for tests: `python upload.py JSON`. The members of JSON are arguments of its uploader, and:
endpoint: where uploads are created. stop_at: the offset at which it ends before the end.

Each line that it prints is a JSON list: the URL, the offset from which it goes on, or the end.
"""

import json
import sys

from tusclient.client import TusClient

arguments = json.loads(sys.argv[1])
client = TusClient(arguments.pop("endpoint"))
stop_at = arguments.pop("stop_at", None)


def tell(*what):
    print(json.dumps(what), flush=True)


uploader = client.uploader(**arguments)
if uploader.url is None:
    uploader.set_url(uploader.create_url())
tell("url", uploader.url)
tell("begins", 200, str(uploader.offset))
uploader.upload(stop_at=stop_at)
tell("success", uploader.url)
