"""`python -m outhaul.deploy.local` -> the same as `outhaul local`."""

from outhaul.deploy.local.cli import app

app(prog_name="outhaul local")
