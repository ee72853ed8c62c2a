"""What computes the embeddings of "cvxnn extract": this library, vLLM, or a server."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cvxnn.cli.console import Console
from cvxnn.cli.inputs import model_of
from cvxnn.cli.option_building import UsageError
from cvxnn.cli.option_groups import EMBEDDING

if TYPE_CHECKING:
    from cvxnn.features.extraction import PairEmbedder

TRANSFORMERS, VLLM = "transformers", "vllm"


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Add the option that says what computes the embeddings.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Parser of a command.
    """
    parser.add_argument(
        "--engine",
        type=_engine,
        default=TRANSFORMERS,
        metavar="ENGINE",
        help="What runs the model: transformers, vllm (extra vllm), or the address of a server "
        "with OpenAI's interface, such as http://localhost:8000/v1, which knows it as --model",
    )


def is_endpoint(options: argparse.Namespace) -> bool:
    """Return True if a server computes the embeddings.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.

    Returns
    -------
    bool
        False if the model runs here.
    """
    return options.engine not in (TRANSFORMERS, VLLM)


def embedder_from(options: argparse.Namespace, console: Console) -> PairEmbedder:
    """Return what computes the embeddings.

    Parameters
    ----------
    options : argparse.Namespace
        Parsed arguments.
    console : Console
        Where to write.

    Returns
    -------
    PairEmbedder
        The embedder.

    Raises
    ------
    UsageError
        If a server is to do what only a model here can.
    """
    settings: dict[str, Any] = {**EMBEDDING.values(options), "progress": not console.quiet}
    if is_endpoint(options):
        return _endpoint(options, console)
    if options.engine == VLLM:
        from cvxnn.llm.vllm_embedder import VllmEmbedder, vllm_engine

        if options.model is None:
            raise UsageError("--engine vllm needs --model, a folder or a name on the Hub")
        lm = model_of(argparse.Namespace(**{**vars(options), "device": "cpu"}), console)
        limit = min(options.max_length, lm.context_length or options.max_length)
        return VllmEmbedder(lm, vllm_engine(options.model, lm, limit), **settings)
    from cvxnn.llm.embeddings import Embedder

    return Embedder(model_of(options, console), **settings)


def _endpoint(options: argparse.Namespace, console: Console) -> PairEmbedder:
    from cvxnn.features.endpoint import EndpointEmbedder

    if options.model is None:
        raise UsageError("--engine with an address needs --model, the server's name of the model")
    if changed := EMBEDDING.changed(options):
        raise UsageError(
            f"{', '.join(sorted(changed))}: the server decides about layer, pooling and lengths; "
            "leave them out"
        )
    console.progress(f"model     {options.model} at {options.engine}")
    return EndpointEmbedder(options.engine, options.model, progress=not console.quiet)


def _engine(text: str) -> str:
    if text in (TRANSFORMERS, VLLM) or text.startswith(("http://", "https://")):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither {TRANSFORMERS}, {VLLM} nor an address that begins with http://"
    )
