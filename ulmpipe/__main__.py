"""`python -m ulmpipe` and the console script `ulmpipe`."""

from .cli import main

if __name__ == "__main__":
    main()
