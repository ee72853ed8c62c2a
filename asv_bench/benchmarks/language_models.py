"""Embeddings, guided decoding and LoRA on a small random LLaMA; needs the extra llm."""

import time

import numpy as np

N_PAIRS, N_WORDS, WORDS = 16, 60, 512
WIDTH, N_BLOCKS, MAX_LENGTH = 256, 6, 160


def language_model():
    """A LLaMA of five million weights whose tokens are numbered words."""
    import torch
    import transformers
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel

    from cvxnn.llm import LanguageModel

    names = ["<unk>", "<bos>", "<eos>", *(f"w{i}" for i in range(WORDS - 3))]
    words = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>")
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return LanguageModel(transformers.LlamaForCausalLM(config).eval(), tokenizer, "small")


def texts(seed):
    """Prompts and two replies for each, of random words."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(WORDS - 3, size=(3, N_PAIRS, N_WORDS))
    return [[" ".join(f"w{i}" for i in row) for row in part] for part in rows]


class Embeddings:
    """Pairs through the model; the floor is the same model on plain, padded batches."""

    params = ([True, False],)
    param_names = ("share_prefixes",)
    timeout = 300

    def setup(self, share_prefixes):
        from cvxnn.llm import Embedder

        prompts, chosen, rejected = texts(0)
        self.prompts, self.replies = prompts * 2, chosen + rejected
        self.embedder = Embedder(
            language_model(), max_length=MAX_LENGTH, share_prefixes=share_prefixes
        )
        self.embedder.embed(self.prompts, self.replies)

    def time_embed(self, share_prefixes):
        self.embedder.embed(self.prompts, self.replies)

    def track_tokens_per_second(self, share_prefixes):
        began = time.perf_counter()
        self.embedder.embed(self.prompts, self.replies)
        return len(self.replies) * 2 * N_WORDS / (time.perf_counter() - began)


class Guidance:
    """A reply of 32 tokens under the guidance of a head, and sampled plainly."""

    params = (["prefix", "token"],)
    param_names = ("mode",)
    timeout = 300

    def setup(self, mode):
        from cvxnn import COALAPreferenceHead
        from cvxnn.llm import Embedder

        self.lm = language_model()
        embedder = Embedder(self.lm, max_length=MAX_LENGTH)
        prompts, chosen, rejected = texts(1)
        self.prompt = prompts[0]
        self.head = COALAPreferenceHead(
            strength=0.1, n_patterns=8, embedding=embedder.description, random_state=0
        ).fit_pairs(embedder.embed(prompts, chosen), embedder.embed(prompts, rejected))

    def time_generate(self, mode):
        self.head.generate(self.lm, self.prompt, mode=mode, max_new_tokens=32)

    def time_plain(self, mode):
        from cvxnn.llm import generate_candidates

        generate_candidates(self.lm, self.prompt, n=1, max_new_tokens=32, seed=0)


class FineTuning:
    """Steps of LoRA on pairs, for one objective and for two."""

    params = (["dpo", "simpo", "alright"],)
    param_names = ("method",)
    timeout = 300
    number = 1
    repeat = 3

    def setup(self, method):
        from cvxnn.llm import FineTuningConfig
        from cvxnn.preference import PreferenceTriplet

        self.lm = language_model()
        prompts, chosen, rejected = texts(2)
        self.pairs = [
            PreferenceTriplet(*row) for row in zip(prompts, chosen, rejected, strict=True)
        ]
        self.replies = list(zip(prompts, chosen, strict=True))
        joint = {"objective": "dpo", "strategy": method} if method == "alright" else {}
        self.config = FineTuningConfig(
            **{"objective": method, **joint}, steps=4, micro_batch=4, accumulation=1
        )

    def run(self, method):
        from cvxnn.llm import fine_tune

        supervised = self.replies if method == "alright" else None
        fine_tune(self.lm, self.config, preferences=self.pairs, supervised=supervised)

    def time_four_steps(self, method):
        self.run(method)

    def peakmem_four_steps(self, method):
        self.run(method)
