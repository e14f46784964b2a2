"""`python -m launcher`: the same as `launch`."""

from launcher.cli import main

main()
