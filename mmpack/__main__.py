"""`python -m mmpack`: the same command line as `mmpack`."""

from mmpack.cli import main

if __name__ == "__main__":
    main()
