"""The recipe of the guide, in plain transformers, gives the vectors of the embedder."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.llm import Embedder

torch = pytest.importorskip("torch")

PAGE = Path(__file__).parents[2] / "docs" / "user_guide" / "deploy.md"
TEMPLATE = "{% for m in messages %}{{ m['content'] }} u {% endfor %}"
MESSAGES = [[{"role": "user", "content": text}] for text in ("a", "b c d e f g h i j k")]


@pytest.mark.parametrize("max_length", [1024, 8, 3])
@pytest.mark.parametrize("pooling", ["mean", "last", "attention"])
def test_the_recipe_gives_the_vectors(tiny_lm: Any, pooling: Any, max_length: int) -> None:
    lm = tiny_lm()
    lm.tokenizer.chat_template = TEMPLATE
    (recipe,) = re.findall(r"^(def embedding\(.*?)\n\n\n", PAGE.read_text("utf-8"), re.S | re.M)
    names: dict[str, Any] = {"torch": torch, "model": lm.model, "tokenizer": lm.tokenizer}
    exec(recipe, names)
    settings: dict[str, Any] = {"pooling": pooling, "max_length": max_length}
    for layer in (0, 1, 2):
        embedder = Embedder(lm, layer=layer, **settings)
        for messages in MESSAGES:
            for reply in ("l", "m n o p"):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # it says that pairs are cut
                    expected = embedder.embed([messages], [reply])[0]
                found = names["embedding"](messages, reply, layer=layer, **settings).numpy()
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
