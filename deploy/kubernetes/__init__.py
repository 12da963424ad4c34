"""Manifests for Kubernetes, and the generator of the one manifest that is made from another file."""
