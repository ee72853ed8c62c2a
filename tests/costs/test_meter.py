"""Costs of phases: operations against closed formulas, time and memory."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvxnn.costs import Cost, CostMeter
from cvxnn.costs.operations import OperationCounter
from cvxnn.llm import LanguageModel
from cvxnn.llm.models import quiet

from ..tiny_models import tiny_tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WIDTH, HIDDEN, LAYERS, HEADS, KEY_HEADS, VOCABULARY = 16, 24, 3, 4, 2, 11
HEAD = WIDTH // HEADS


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def llama(**options: Any) -> Any:
    config = transformers.LlamaConfig(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "intermediate_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_HEADS,
            "max_position_embeddings": 64,
            **options,
        }
    )
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


def tokens(rows: int, length: int) -> Any:
    return torch.arange(rows * length).reshape(rows, length) % VOCABULARY


# Operations, counted by hand

ATTENTION_LAYERS = {
    "q_proj": (WIDTH, WIDTH),
    "k_proj": (WIDTH, KEY_HEADS * HEAD),
    "v_proj": (WIDTH, KEY_HEADS * HEAD),
    "o_proj": (WIDTH, WIDTH),
}
PERCEPTRON_LAYERS = {
    "gate_proj": (WIDTH, HIDDEN),
    "up_proj": (WIDTH, HIDDEN),
    "down_proj": (HIDDEN, WIDTH),
}
DENSE = {**ATTENTION_LAYERS, **PERCEPTRON_LAYERS}


def dense(n_tokens: int) -> int:
    """All layers of all blocks, without attention's own products."""
    return LAYERS * 2 * n_tokens * sum(i * o for i, o in DENSE.values())


def attention(rows: int, length: int) -> int:
    """Scores of all pairs, and the mean of values by them."""
    return LAYERS * 2 * (2 * rows * length**2 * WIDTH)


def output(n_tokens: int) -> int:
    return 2 * n_tokens * WIDTH * VOCABULARY


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("gradient", [False, True])
def test_forward_pass_against_the_formula(masked: bool, gradient: bool) -> None:
    model, meter = llama().requires_grad_(gradient), CostMeter()
    mask = torch.ones(2, 7, dtype=torch.long)
    if masked:
        mask[1, 5:] = 0
    with torch.inference_mode(not gradient), meter.phase("embed"):
        model(tokens(2, 7), attention_mask=mask, use_cache=False)
    expected = dense(14) + attention(2, 7) + output(14)
    assert meter["embed"].flops == expected


def test_lora_forward_and_backward_against_the_formula() -> None:
    peft = pytest.importorskip("peft")
    rank, rows, length = 2, 2, 5
    n = rows * length
    lora = peft.LoraConfig(r=rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    with quiet():
        model = peft.get_peft_model(llama(), lora)
    meter = CostMeter()
    with meter.phase("train"):
        logits = model(tokens(rows, length), use_cache=False).logits
    forward = dense(n) + attention(rows, length) + output(n)
    adapted = [ATTENTION_LAYERS[name] for name in ("q_proj", "v_proj")]
    adapters = LAYERS * sum(2 * n * rank * (i + o) for i, o in adapted)
    assert meter["train"].flops == forward + adapters
    with meter.phase("backward"):
        logits.sum().backward()
    # Frozen layers pass the slope on, which costs as much as they did; adapters do that and get
    # slopes of their own weights. The first block's input needs no slope: what leads there is the
    # product with the layers of queries, keys and values, and the adapters' first factors.
    passed_on = dense(n) + output(n) + 2 * adapters
    first_block = (
        2 * n * sum(i * o for name, (i, o) in ATTENTION_LAYERS.items() if name != "o_proj")
    )
    first_block += sum(2 * n * rank * i for i, _ in adapted)
    # Attention: scores again, then the slopes of weights, values, queries and keys.
    back = LAYERS * 5 * (2 * rows * length**2 * WIDTH)
    assert meter["backward"].flops == passed_on - first_block + back


@pytest.mark.parametrize(
    ("product", "flops"),
    [
        (lambda a, b: a @ b, 2 * 3 * 4 * 5),
        (lambda a, b: a @ b[:, 0], 2 * 3 * 4),
        (lambda a, b: torch.addmv(a[:, 0], a, b[:, 0]), 2 * 3 * 4),
        (lambda a, b: torch.dot(a[0], b[:, 0]), 2 * 4),
        (lambda a, b: torch.einsum("ij,jk->k", a, b), 2 * 4 * 5),
        (lambda a, b: a + 1, 0),
    ],
)
def test_products(product: Any, flops: int) -> None:
    meter = CostMeter()
    with meter.phase("x"):
        product(torch.ones(3, 4), torch.ones(4, 5))
    assert meter["x"].flops == flops


def test_the_embedder_is_counted(tiny: LanguageModel) -> None:
    from cvxnn.llm import Embedder

    meter = CostMeter()
    embedder = Embedder(tiny, share_prefixes=False)
    with meter.phase("embed"):
        embedder.embed(["a b", "c d"], ["a b c", "d d e"])
    # No output layer; two rows of five tokens.
    assert embedder.tokens_computed_ == 10
    assert meter["embed"].flops == dense(10) + attention(2, 5)


# Phases


def product(n: int) -> None:
    torch.ones(n, n) @ torch.ones(n, n)


def test_phases_accumulate_and_inner_ones_have_their_costs_to_themselves() -> None:
    meter = CostMeter()
    for _ in range(2):
        with meter.phase("train"):
            product(2)
            with meter.phase("reference"):
                product(3)
                time.sleep(0.05)
            product(4)
    product(9)  # outside of all phases
    assert list(meter.costs) == ["train", "reference"]
    assert meter["train"].flops == 2 * 2 * (2**3 + 4**3)
    assert meter["reference"].flops == 2 * 2 * 3**3
    assert meter["reference"].seconds >= 0.1 > meter["train"].seconds
    assert meter.total.flops == meter["train"].flops + meter["reference"].flops


def test_an_error_leaves_the_costs_and_nothing_else() -> None:
    meter, threads = CostMeter(), threading.active_count()
    with pytest.raises(RuntimeError), meter.phase("train"), meter.phase("reference"):
        torch.ones(3, 3) @ torch.ones(3, 3) @ torch.ones(4)
    assert meter["reference"].flops == 2 * 3**3
    assert threading.active_count() == threads
    product(5)
    with meter.phase("train"):
        product(2)
    assert meter["train"].flops == 2 * 2**3
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    assert _get_current_dispatch_mode() is None
    assert not torch.nn.modules.module._global_forward_pre_hooks
    assert not torch.nn.modules.module._global_forward_hooks


def test_two_meters_count_the_same() -> None:
    one, other = CostMeter(), CostMeter()
    with one.phase("a"), other.phase("b"):
        product(3)
    assert one["a"].flops == other["b"].flops == 2 * 3**3


def test_solvers_add_their_own() -> None:
    meter = CostMeter()
    meter.add_flops("phase I", 2.0e9)
    with meter.phase("phase I"):
        meter.add_flops("phase I", 1.0)
    assert meter["phase I"].flops == 2_000_000_001
    assert meter["phase I"].seconds > 0
    for wrong in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected a finite number of at least 0"):
            meter.add_flops("phase I", wrong)
    with pytest.raises(KeyError, match=r"no phase 'train'; there are \['phase I'\]"):
        meter["train"]


def test_a_run_goes_on_from_json() -> None:
    meter = CostMeter()
    with meter.phase("train"):
        product(3)
    again = CostMeter.from_dict(json.loads(json.dumps(meter.to_dict())))
    assert again.costs == meter.costs
    with again.phase("train"):
        product(3)
    assert again["train"].flops == 2 * meter["train"].flops
    both = meter.merge(again)
    assert both["train"].flops == 3 * meter["train"].flops
    assert both["train"].seconds == meter["train"].seconds + again["train"].seconds
    assert both["train"].peak_bytes == max(m["train"].peak_bytes for m in (meter, again))
    for wrong in ({"train": {"flops": 1}}, {"train": 3}):
        with pytest.raises(ValueError, match="costs of phase 'train' are"):
            CostMeter.from_dict(wrong)  # type: ignore[arg-type]


def test_peak_of_resident_memory() -> None:
    meter, size = CostMeter(), 2**26
    with meter.phase("small"):
        pass
    with meter.phase("large"):
        held = np.ones(size, np.uint8)  # alive while the watching thread looks
        time.sleep(0.5)
        del held
    with meter.phase("after"):
        time.sleep(0.05)
    assert 0.9 * size < meter["large"].added_bytes < 3 * size
    assert meter["small"].added_bytes < size / 2
    assert meter["after"].added_bytes < size / 2
    assert meter["large"].peak_bytes >= meter["large"].added_bytes


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.slow
def test_torch_is_not_imported_and_missed_if_it_comes_late(late: bool) -> None:
    code = (
        "import sys, warnings\n"
        "from cvxnn.costs import CostMeter\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always', UserWarning)\n"
        "    with CostMeter().phase('embed'):\n"
        f"        {'import torch' if late else 'pass'}\n"
        "print('torch' in sys.modules, [str(w.message)[:18] for w in caught])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{late} {['torch was imported'] if late else []}"


def test_table() -> None:
    meter = CostMeter({"embed": Cost(3 * 10**12, 2.0, 2.0, 2**30), "train": Cost(10**12, 1.0)})
    lines = str(meter).splitlines()
    assert lines[0].split() == ["embed", "3e+12", "FLOPs", "2.0", "s", "1.00", "GiB"]
    assert lines[-1].split() == ["total", "4e+12", "FLOPs", "3.0", "s", "1.00", "GiB"]
    assert str(CostMeter()) == ""


@pytest.mark.parametrize("kernel", ["flash", "efficient", "cudnn"])
def test_kernels_of_a_gpu_count_grouped_queries(kernel):
    """Tensors without memory stand for a GPU: 4 heads of queries, 2 of keys and values."""
    queries, keys = (torch.empty(2, heads, 8, 16, device="meta") for heads in (4, 2))
    forward = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention")
    with OperationCounter() as counter:
        forward(queries, keys, keys, *(() if kernel == "flash" else (None, False)))
    product = 2 * 2 * 4 * 8 * 8 * 16  # every head of queries with 8 keys
    assert counter.flops == 2 * product
    backward = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention_backward")
    formula = counter._formulas[backward]
    assert formula(queries, queries, keys, keys, out_val=queries) == 5 * product


@pytest.fixture
def tiny() -> LanguageModel:
    words = ["<pad>", "<unk>", "<eos>", *"abcdefgh"]
    tokenizer = tiny_tokenizer(words, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>")
    return LanguageModel(llama(), tokenizer, "tiny")


@pytest.mark.slow
def test_methods_of_the_paper_are_counted_without_weights(monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2])
    from asv_bench.preference import table3

    shape = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "max_position_embeddings": 1024,
    }
    found = table3.measure("tiny", {"source": "this test", "config": shape})
    counted = found["tflop"]
    assert counted["orpo"] == counted["simpo"]
    # The reference of DPO goes forward alone, and adapters are trained without weight gradients.
    assert 1.2 < counted["dpo"] / counted["orpo"] < 1.6
    assert counted["coala"] < counted["dpo, prompt shared"] < counted["dpo"]
    assert table3.head_flops(4096) == pytest.approx(35.055e12, rel=1e-4)
