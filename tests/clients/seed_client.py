"""A client that speaks the seed's protocol and nothing newer: what its users have, bigup must serve unchanged.

It asks with `requests` which slices are held, reads the missing ones into a bounded queue and posts them with `aiohttp`
as the form field `slic_content`, until nothing is missing. Exit codes: 0 nothing is missing or the file was uploaded
before, 1 the server does not answer as it should, 2 wrong usage.
"""

import argparse
import asyncio
import logging
import os
import sys

import aiofiles
import aiohttp
import requests

QUEUE_SIZE = 10


def arguments():
    parser = argparse.ArgumentParser(description="Uploads a file as the seed's client does.")
    parser.add_argument("file")
    parser.add_argument("url", help="like http://127.0.0.1:8888/big_file_upload")
    parser.add_argument("--slice-size", type=int, default=512 * 1024)
    parser.add_argument("--consumers", type=int, default=1)
    return parser.parse_args()


def held_slices(url, file_name, slice_num):
    """Whether the file is finished, and the ids of the held slices."""
    answer = requests.get(url, params={"file_name": file_name, "slice_num": slice_num}, timeout=60).json()
    if answer["status"] != 200:
        raise RuntimeError(f"GET was refused: {answer}")
    return answer["is_uploaded"], set(map(int, answer["slice_ids_uploaded"]))


async def produce(path, slice_ids, slice_size, queue):
    async with aiofiles.open(path, "rb") as file:
        for slice_id in slice_ids:
            await file.seek(slice_id * slice_size)
            await queue.put((slice_id, await file.read(slice_size)))


async def consume(session, url, file_name, queue):
    """Posts slices for ever. One that fails stays missing, so the next round sends it again."""
    while True:
        slice_id, content = await queue.get()
        params = {"file_name": file_name, "slice_id": slice_id, "slice_size": len(content)}
        try:
            async with session.post(url, data={"slic_content": content}, params=params) as response:
                answer = await response.json()
                if answer["status"] != 200 or int(answer["slice_id"]) != slice_id:
                    logging.error("slice %d: %s", slice_id, answer)
        except aiohttp.ClientError as error:
            logging.error("slice %d: %r", slice_id, error)
        finally:
            queue.task_done()


async def upload(path, url, slice_size, consumers):
    file_name = os.path.basename(path)
    slice_num = -(-os.path.getsize(path) // slice_size)
    missing = set(range(slice_num))
    queue = asyncio.Queue(QUEUE_SIZE)
    async with aiohttp.ClientSession() as session:
        tasks = [asyncio.create_task(consume(session, url, file_name, queue)) for _ in range(consumers)]
        try:
            while True:
                is_uploaded, held = await asyncio.to_thread(held_slices, url, file_name, slice_num)
                if is_uploaded:
                    print("already uploaded", flush=True)
                    return
                missing -= held
                if not missing:
                    print("nothing is missing", flush=True)
                    return
                print(f"{len(missing)} of {slice_num} slices are missing", flush=True)
                await produce(path, sorted(missing), slice_size, queue)
                await queue.join()
        finally:
            for task in tasks:
                task.cancel()


def main():
    given = arguments()
    try:
        asyncio.run(upload(given.file, given.url, given.slice_size, given.consumers))
    except (requests.RequestException, RuntimeError) as error:
        logging.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
