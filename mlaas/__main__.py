"""python -m mlaas is the command mlaas."""

from mlaas.cli import main

if __name__ == "__main__":
    main()
