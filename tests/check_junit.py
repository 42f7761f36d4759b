"""Fails unless the tests ran that no machine of ours may leave out; prints all that were skipped. For `.ci/run`.

    python tests/check_junit.py tests.xml --need=browser --need=gltf-validator --need=three.js

Always needed are the contract tests of every rasterizer backend. With `--need=browser` (there is a browser) the browser
tests have to have run, with `--need=gltf-validator`, `--need=three.js`, `--need=wabt` and `--need=gpu-compiler` (they
are installed) those that ask these.
"""

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree

BACKENDS = ("xla", "native", "pallas")
# What a test says when it is skipped for want of something.
REASONS = {"browser": "no browser", "gltf-validator": "gltf-validator|glTF validator", "three.js": r"three\.js"}
REASONS |= {"gpu-compiler": "no compiler for GPUs", "wabt": "wabt is not installed"}
IN_A_BROWSER = "_browser"  # ends the names of files with browser tests


def read_cases(path):
    """(module, name, reason why it was skipped or None, whether it passed) of every test of a junit file."""
    for case in ElementTree.parse(path).iter("testcase"):
        skipped = case.find("skipped")
        reason = None if skipped is None else skipped.get("message") or "no reason given"
        yield case.get("classname", ""), case.get("name", ""), reason, len(case) == 0


def find_faults(cases, needs):
    """A line for everything that had to run and did not."""
    ran = dict.fromkeys(BACKENDS, 0)
    in_browser = 0
    for module, name, reason, passed in cases:
        for need in needs:
            if reason is not None and re.search(REASONS[need], reason):
                yield f"{module}.{name} was skipped though there is {need}: {reason}"
        if passed and "test_contract" in module:
            for backend in BACKENDS:
                ran[backend] += backend in name
        in_browser += passed and module.endswith(IN_A_BROWSER)
    print("contract tests passed:", ", ".join(f"{name} {count}" for name, count in ran.items()))
    print(f"browser tests passed: {in_browser}")
    yield from (f"the contract tests of backend {name} did not run" for name, count in ran.items() if count == 0)
    if "browser" in needs and not in_browser:
        yield "no browser test ran though there is a browser"


def main(argv=None):
    """Reads a junit file and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="the junit file")
    parser.add_argument("--need", action="append", default=[], choices=sorted(REASONS), help="what the machine has")
    options = parser.parse_args(argv)
    cases = list(read_cases(options.path))
    for module, name, reason, _ in cases:
        if reason is not None:
            print(f"skipped: {module}.{name}: {reason}")
    faults = list(find_faults(cases, options.need))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
