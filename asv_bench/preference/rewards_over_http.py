"""Time that a request to ``cvxnn serve`` takes, with the model that it loads by default.

    OMP_NUM_THREADS=1 python asv_bench/preference/rewards_over_http.py --out rewards_over_http.jsonl

The head is a random one of the right width: what it prefers takes no time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import threading
import time
from pathlib import Path

import numpy as np

from asv_bench.raw_results import append
from cvxnn import LinearPreferenceHead
from cvxnn.llm import Embedder, RewardServer, load_model

REPLY = "Because light of short waves is scattered more, so it reaches us from all sides, case {}."
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    embedder = Embedder(load_model())
    rng = np.random.default_rng(0)
    won, lost = rng.standard_normal((2, 40, embedder.description["width"]))
    head = LinearPreferenceHead(C=1.0, embedding=embedder.description).fit_pairs(won, lost)
    with RewardServer(head, embedder, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for n_replies in (1, 8, 32):
            walls, seconds = [], []
            for k in range(REPEATS):
                replies = [REPLY.format(100 * k + i) for i in range(n_replies)]
                body = json.dumps({"prompt": "Why is the sky blue?", "responses": replies})
                wall, cpu = time.perf_counter(), time.process_time()
                connection = http.client.HTTPConnection(*server.server_address[:2])
                connection.request("POST", "/rank", body)
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
                connection.close()
                walls.append(time.perf_counter() - wall)
                seconds.append(time.process_time() - cpu)
            record = {
                "replies": n_replies,
                "tokens": embedder.tokens_computed_,
                "wall_s": statistics.median(walls),
                "cpu_s": statistics.median(seconds),
            }
            print(record)
            append(options.out, record)
        server.shutdown()


if __name__ == "__main__":
    main()
