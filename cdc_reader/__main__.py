"""`python -m cdc_reader` is `outhaul`, for places where the script is not on the path."""

from cdc_reader.cli import main

main()
