"""All C++ and its one loader."""
