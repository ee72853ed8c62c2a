"""Language models: loading, embeddings, generation, guided decoding, fine-tuning and memory.

Everything that a user needs is exported here: ``from cvxnn.llm import Embedder, load_model``. Names
load when first used. The package needs the extra ``llm``.
"""

from cvxnn._extras import check_packages
from cvxnn._public_names import attach

check_packages("torch", "transformers", extra="llm")

__getattr__, __dir__, __all__ = attach(__name__, __file__)
