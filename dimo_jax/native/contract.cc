// What jax's calls to this library pass, as a number: a library of an older checkout is told by it.

#pragma GCC visibility push(default)  // all else is hidden

// CONTRACT in library.py; goes up whenever operands, results or attributes of a call change.
extern "C" int DimoContract() { return 2; }

#pragma GCC visibility pop
