"""The documentation as a site: what makes pages of GitHub ones of MkDocs."""
