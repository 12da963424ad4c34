"""The repository's Markdown, written for GitHub -> pages of a MkDocs site."""
