"""Costs: operations against closed formulas, memory against what tensors take."""

import json
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cvxnn.costs import Cost, CostMeter
from cvxnn.costs.operations import OperationCounter
from cvxnn.llm.memory import MemoryPlan, memory_plan
from cvxnn.llm.models import LanguageModel, quiet

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

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


def test_table() -> None:
    meter = CostMeter({"embed": Cost(3 * 10**12, 2.0, 2.0, 2**30), "train": Cost(10**12, 1.0)})
    lines = str(meter).splitlines()
    assert lines[0].split() == ["embed", "3e+12", "FLOPs", "2.0", "s", "1.00", "GiB"]
    assert lines[-1].split() == ["total", "4e+12", "FLOPs", "3.0", "s", "1.00", "GiB"]
    assert str(CostMeter()) == ""


# Plans


class Live(TorchDispatchMode):  # type: ignore[misc]
    """Bytes of the tensors that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: dict[int, Any] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, torch.Tensor):
                storage = part.untyped_storage()
                key, size = storage._cdata, storage.nbytes()
                if key not in self.seen:
                    self.now += size
                    self.seen[key] = weakref.ref(storage, self._gone(key, size))
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key: int, size: int) -> Any:
        def forget(_: Any) -> None:
            del self.seen[key]
            self.now -= size

        return forget


LARGER = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 256,
}


def test_activations_of_embedding_against_live_tensors() -> None:
    model = llama(**LARGER)
    ids = torch.arange(4 * 64).reshape(4, 64)
    with torch.inference_mode(), Live() as live:
        model.model(ids, attention_mask=torch.ones_like(ids), use_cache=False)
    plan = memory_plan(model.config, batch_tokens=256, max_length=64, dtype="float32")
    assert live.peak <= 1.1 * plan.activations
    assert plan.activations - 256**2 * 5 <= live.peak


@pytest.mark.parametrize("dropout", [0.0, 0.05])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_of_fine_tuning_against_live_tensors(
    dropout: float, checkpointing: bool
) -> None:
    peft = pytest.importorskip("peft")
    plain = llama(**LARGER, num_hidden_layers=6)
    targets = list(DENSE)
    lora = peft.LoraConfig(r=4, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM")
    with quiet():
        model = peft.get_peft_model(plain, lora).train()
    if checkpointing:
        model.enable_input_require_grads()
        with quiet():
            model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.arange(2 * 128).reshape(2, 128)
    with Live() as live:
        states = model.base_model.model.model(ids, use_cache=False).last_hidden_state
        states.sum().backward()
    plan = memory_plan(
        llama(**LARGER, num_hidden_layers=6).config,
        method="fine_tune",
        batch_tokens=256,
        max_length=128,
        dtype="float32",
        lora_r=4,
        lora_dropout=dropout,
        gradient_checkpointing=checkpointing,
    )
    slopes = plan.adapters
    trained = sum(w.numel() for w in model.parameters() if w.requires_grad)
    assert plan.adapters == 4 * trained
    assert 0.75 < plan.activations / (live.peak - slopes) < 1.34


def llama_8b() -> Any:
    return transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="module")
def plan_8b() -> MemoryPlan:
    return memory_plan(llama_8b(), method="guide", max_length=2048, n_candidates=4)


def test_llama_8b_from_its_configuration(plan_8b: MemoryPlan) -> None:
    assert plan_8b.model.n_parameters == 8_030_261_248
    assert plan_8b.weights == 2 * 8_030_261_248
    # Keys and values, 8 heads of 128, in 32 blocks, 2 bytes each.
    assert plan_8b.kv_cache == 2 * 8 * 128 * 32 * 2 * 2048 * 4
    assert plan_8b.fits(24)
    assert plan_8b.advice(24) == {}
    assert "fits in 24 GiB" in str(plan_8b)
    assert json.loads(json.dumps(plan_8b.to_dict()))["total"] == plan_8b.total


def test_advice_is_enough_and_needed() -> None:
    plan = memory_plan(
        llama_8b(), method="fine_tune", batch_tokens=8192, dtype="float32", n_texts=1000
    )
    advice = plan.advice(24)
    assert advice["dtype"] == "bfloat16"
    assert advice["gradient_checkpointing"] is True
    options: dict[str, Any] = {"batch_tokens": 8192, "dtype": "float32", **advice}
    assert memory_plan(llama_8b(), method="fine_tune", **options).fits(24)
    for name in advice:
        without = {**options, name: {"dtype": "float32", "batch_tokens": 8192}.get(name, False)}
        assert not memory_plan(llama_8b(), method="fine_tune", **without).fits(24)
    assert "does not fit in 24 GiB: set dtype='bfloat16'" in plan.report(24)
    assert plan.disk == 4 * 4096 * 1000
    with pytest.raises(MemoryError, match=r"15\.0 GiB of weights in bfloat16"):
        plan.advice(12)
    assert "take a smaller model" in plan.report(12)


def test_plan_of_a_loaded_model(tiny: LanguageModel) -> None:
    plan = memory_plan(tiny)
    assert plan.settings.dtype == "float32"
    assert plan.weights == 4 * sum(w.numel() for w in tiny.model.parameters())
    assert plan.model == memory_plan(tiny.model.config).model


def test_plan_of_another_architecture() -> None:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64)
    plan = memory_plan(config, method="fine_tune", batch_tokens=64, max_length=64)
    assert plan.model.hidden == 128
    assert not plan.model.gated
    sizes = [(32, 96), (32, 32), (128, 32)]  # c_attn and both c_proj
    assert plan.adapters == 4 * 16 * 2 * sum(i + o for i, o in sizes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "train"}, "method is 'train'; expected one of"),
        ({"batch_tokens": 0}, "batch_tokens is 0; expected an integer of at least 1"),
        ({"n_texts": 1.5}, r"n_texts is 1\.5"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"dtype": "huge"}, "dtype is 'huge'"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memory_plan(transformers.LlamaConfig(num_hidden_layers=1, hidden_size=64), **options)


@pytest.fixture
def tiny() -> LanguageModel:
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    vocabulary = {w: i for i, w in enumerate(["<pad>", "<unk>", "<eos>", *"abcdefgh"])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    )
    return LanguageModel(llama(), tokenizer, "tiny")


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
