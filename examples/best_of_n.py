r"""
Best of n, beside another generation stack
==========================================

A server with the chat completions of OpenAI's API, such as those of vLLM or llama.cpp, writes n
candidates, and ``cvxnn serve`` says which one the head prefers. The standard library is enough
here::

    cvxnn serve head.safetensors
    python examples/best_of_n.py "Why is the sky blue?" --generator http://127.0.0.1:8080/v1 -n 8
"""

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any


def post(url: str, body: dict[str, Any], key: str | None = None) -> Any:
    """Send JSON, and return the JSON of the answer; end with the error of the server."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{url} answers {error.code}: {error.read().decode(errors='replace')}")
    except urllib.error.URLError as error:
        sys.exit(f"{url} cannot be reached ({error.reason}); is the server running there?")


def candidates(url: str, messages: list[dict[str, str]], n: int, **options: Any) -> list[str]:
    """Return n replies to messages; servers that write fewer at a time are asked again."""
    key = os.environ.get("GENERATOR_KEY")
    found: list[str] = []
    for _ in range(2 * n):
        if len(found) >= n:
            break
        body = {"messages": messages, "n": n - len(found), **options}
        choices = post(f"{url}/chat/completions", body, key)["choices"]
        texts = [choice["message"]["content"] or "" for choice in choices]
        found += [text for text in texts if text.strip()]
    if not found:
        sys.exit(f"{url} wrote no text; check the model and the prompt")
    return found[:n]


def best_of(
    url: str, messages: list[dict[str, str]], replies: list[str]
) -> tuple[int, list[float]]:
    """Return the number of the best reply, and the rewards of all."""
    answer = post(f"{url}/rank", {"prompt": messages, "responses": replies})
    return answer["order"][0], answer["rewards"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Best of n by a head of cvxnn.")
    parser.add_argument("prompt")
    parser.add_argument("--generator", default="http://127.0.0.1:8080/v1", metavar="URL")
    parser.add_argument("--model", default="default", help="name of the model at the generator")
    parser.add_argument("--rewards", default="http://127.0.0.1:8000", metavar="URL")
    parser.add_argument("-n", type=int, default=5, help="number of candidates (default 5)")
    parser.add_argument("--temperature", type=float, default=1.0)
    options = parser.parse_args(argv)
    messages = [{"role": "user", "content": options.prompt}]
    sampling = {"model": options.model, "temperature": options.temperature}
    replies = candidates(options.generator.rstrip("/"), messages, options.n, **sampling)
    best, rewards = best_of(options.rewards.rstrip("/"), messages, replies)
    for reply, reward in zip(replies, rewards, strict=True):
        print(f"{reward:8.3f}  {reply[:80]!r}", file=sys.stderr)
    print(replies[best])


if __name__ == "__main__":
    main()
