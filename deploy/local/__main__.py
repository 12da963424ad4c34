"""`python -m deploy.local` -> the same as `outhaul local`."""

from deploy.local.cli import app

app(prog_name="outhaul local")
