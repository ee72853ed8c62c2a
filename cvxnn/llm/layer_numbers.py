"""Numbers of layers, counted from the token embeddings; nothing here needs the model."""

from __future__ import annotations

from cvxnn.features.description import Layers


def layer_numbers(layer: Layers, n_layers: int, name: str) -> list[int]:
    """Return the numbers of one or several layers, counted from the token embeddings.

    Parameters
    ----------
    layer : int, sequence of int or "all"
        The layers as in `Embedder`; negative numbers count from the last one.
    n_layers : int
        Number of blocks of the model.
    name : str
        Name of the model, for messages.

    Returns
    -------
    list of int
        Each from 0, the token embeddings, to the number of blocks.

    Raises
    ------
    ValueError
        If the model has no such layer, or none or the same one twice is named.
    """
    if isinstance(layer, str):
        if layer != "all":
            raise ValueError(f"layer is {layer!r}; expected a number, several, or 'all'")
        return list(range(1, n_layers + 1))
    found = []
    for one in [layer] if isinstance(layer, int) else layer:
        if not -n_layers - 1 <= one <= n_layers:
            raise ValueError(
                f"layer is {one}; {name} has {n_layers} blocks, so expected {-n_layers - 1} to "
                f"{n_layers}"
            )
        found.append(int(one % (n_layers + 1)))
    if not found or len(set(found)) < len(found):
        raise ValueError(f"layer is {layer!r}; expected one layer, or several different ones")
    return found
