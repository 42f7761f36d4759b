"""The process and its machine: compiler, caches, memory, hosts, signals, and the files and locks of a workdir."""
