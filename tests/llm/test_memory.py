"""Plans of memory, against the memory that tensors take and the published size of a model."""

import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from cvxnn.llm import LanguageModel, MemoryPlan, memory_plan
from cvxnn.llm.models import quiet

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402


def llama(**options: Any) -> Any:
    config = transformers.LlamaConfig(**{"num_hidden_layers": 3, **options})
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config).eval().requires_grad_(False)


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
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
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
    with pytest.raises(MemoryError, match=r"15 GiB of weights in bfloat16"):
        plan.advice(12)
    assert "take a smaller model" in plan.report(12)


def test_plan_of_a_loaded_model(tiny_lm: Callable[..., LanguageModel]) -> None:
    tiny = tiny_lm()
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
