"""Fails unless every rasterizer backend's contract tests ran; prints what was skipped. Used by `.ci/run`."""

import sys
import xml.etree.ElementTree as ElementTree

BACKENDS = ("xla", "native", "pallas")


def main(path: str) -> int:
    """Reads a junit file and returns the exit code."""
    passed = dict.fromkeys(BACKENDS, 0)
    for case in ElementTree.parse(path).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None:
            print(f"skipped: {case.get('classname')}.{case.get('name')}: {skipped.get('message')}")
        elif "test_contract" in case.get("classname", "") and len(case) == 0:
            for backend in BACKENDS:
                passed[backend] += backend in case.get("name", "")
    print("contract tests passed:", ", ".join(f"{name} {count}" for name, count in passed.items()))
    missing = [name for name, count in passed.items() if count == 0]
    if missing:
        print(f"error: the contract tests of backend {missing[0]} did not run", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
