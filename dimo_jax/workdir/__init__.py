"""What lies in a run's folder for other processes to see: who runs there, how far it is, what a checkpoint consists of.

Nothing here imports more than the standard library, so that `--app=status` answers at once.
"""
