"""Stores, probes, vectors and results of pearlpoint, and the program `pearl`.

Everything here reads and writes the files that `docs/formats.md` describes; the model runs in the program.

>>> import pearlpoint as pp
>>> pp.run("extract", data="dialogues.jsonl", tokens="assistant.start", out="store")
>>> store = pp.Store("store")
>>> probe = pp.Probe("user-type.safetensors")
>>> probe.predict_proba(store[probe.site])
"""

from .command import PearlError, binary, run
from .importers import sae_vectors, store_from_sae_activations, store_from_vllm
from .picture import Picture
from .probe import Probe
from .results import results
from .server import Server
from .store import Store
from .vector import Vector

__all__ = [
    "PearlError",
    "Picture",
    "Probe",
    "Server",
    "Store",
    "Vector",
    "binary",
    "results",
    "run",
    "sae_vectors",
    "store_from_sae_activations",
    "store_from_vllm",
]
