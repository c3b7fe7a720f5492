"""The networks as Python modules that read like their papers, behind one way to build them."""

from yolomish.networks.base import Network
from yolomish.networks.registry import build_network, find_model

__all__ = ["Network", "build_network", "find_model"]
