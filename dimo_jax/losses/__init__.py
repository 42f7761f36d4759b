"""Training losses, one function per term of the paper."""
