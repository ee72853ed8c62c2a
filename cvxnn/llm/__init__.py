"""Language models: loading, embeddings, generation, guided decoding, fine-tuning and memory.

Everything that a user needs is exported here: ``from cvxnn.llm import Embedder, load_model``. Names
load when first used. The package needs the extra ``llm``.
"""

import lazy_loader

from cvxnn._extras import check_packages

check_packages("torch", "transformers", extra="llm")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
