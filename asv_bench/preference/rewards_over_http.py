"""Latency and throughput of ``cvxnn serve``, with the model that it loads by default.

    OMP_NUM_THREADS=1 python asv_bench/preference/rewards_over_http.py --out rewards_over_http.jsonl

One client, or sixteen at once, send their next request as soon as the last one is answered. The
requests of sixteen are answered in common batches and, for comparison, one by one. The head is a
random one of the right width: what it prefers takes no time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from asv_bench.raw_results import append
from cvxnn import LinearPreferenceHead
from cvxnn.llm import Embedder, RewardServer, load_model

PROMPT = "Why is the sky blue{}?"
REPLY = "Because light of short waves is scattered more, so it reaches us from all sides, case {}."
# Replies in a request, clients, requests of each client, whether requests share batches.
CASES = [(1, 1, 24, True), (1, 16, 4, False), (1, 16, 4, True)]
CASES += [(8, 1, 12, True), (8, 16, 2, False), (8, 16, 2, True)]


def ask(server: RewardServer, client: int, number: int, n_replies: int) -> float:
    """Return the seconds that a request takes; each has replies and a prompt of its own."""
    replies = [REPLY.format(1000 * client + 10 * number + i) for i in range(n_replies)]
    prompt = PROMPT.format(", client " + str(client) if client else "")
    began = time.perf_counter()
    connection = http.client.HTTPConnection(*server.server_address[:2])
    connection.request("POST", "/rank", json.dumps({"prompt": prompt, "responses": replies}))
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()
    return time.perf_counter() - began


def measure(server: RewardServer, n_replies: int, clients: int, repeats: int) -> dict[str, float]:
    """Return what requests of some clients at once take."""
    ask(server, 0, 0, n_replies)
    with ThreadPoolExecutor(clients) as pool:
        began, cpu = time.perf_counter(), time.process_time()
        walls = pool.map(
            lambda client: [ask(server, client, k, n_replies) for k in range(repeats)],
            range(clients),
        )
        each = np.concatenate(list(walls))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "p50_s": round(float(np.quantile(each, 0.5)), 3),
        "p95_s": round(float(np.quantile(each, 0.95)), 3),
        "replies_per_s": round(n_replies * len(each) / wall, 2),
        "cpu_s_per_reply": round(cpu / (n_replies * len(each)), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model-cache", type=Path)
    options = parser.parse_args()
    embedder = Embedder(load_model(cache_dir=options.model_cache))
    rng = np.random.default_rng(0)
    won, lost = rng.standard_normal((2, 40, embedder.description["width"]))
    head = LinearPreferenceHead(C=1.0, embedding=embedder.description).fit_pairs(won, lost)
    for n_replies, clients, repeats, together in CASES:
        most = 64 if together else n_replies
        with RewardServer(head, embedder, port=0, max_replies=most) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            record = {"replies": n_replies, "clients": clients, "together": together}
            record |= measure(server, n_replies, clients, repeats)
            server.shutdown()
        print(record, flush=True)
        append(options.out, record)


if __name__ == "__main__":
    main()
