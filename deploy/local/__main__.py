"""`python -m outhaul.deploy.local` -> the command line of `outhaul local`.

Edge: the terminal.
"""

from outhaul.deploy.local.cli import app

app(prog_name="outhaul local")
