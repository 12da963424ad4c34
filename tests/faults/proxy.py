"""The proxy lives with the embedded stack, where the chaos run uses it too."""

from outhaul.deploy.local.fault_proxy import Act, Proxy, Trap

__all__ = ["Act", "Proxy", "Trap"]
