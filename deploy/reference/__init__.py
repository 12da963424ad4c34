"""Pages of docs/reference/ that are generated from the code: one file here for each page.

`python -m outhaul.deploy.reference` writes them; tests/unit/test_reference.py compares them with the code.
"""
