#!/usr/bin/env bash
# All that is to be seen on a machine with an accelerator, in at most eight minutes: every backend of the rasterizer
# against the oracle, the tables of bench.rasterize (with gsplat and splax where they are installed) and bench.step, and
# 200 steps of preset paper.
#
#     bash bench/on_device.sh OUT            # a folder that is made; what it writes is listed in its summary.md
#     bash bench/on_device.sh OUT --small    # the same commands at their smallest, for a try on a CPU
#
# PYTHON names the interpreter (default: python), in whose environment the package with its extra test and a jax for the
# device are installed; nothing is installed here. For the peers: pip install splax, and a gsplat that fits torch's CUDA
# (docs.gsplat.studio has wheels; PyPI's compiles for minutes at its first call). Ends with code 1 where a part failed;
# the parts after it run all the same.
set -uo pipefail

usage() { printf 'error: %s; expected OUT [--small]\n' "$1" >&2; exit 2; }
[ $# -ge 1 ] && [ -n "$1" ] && [ "${1#-}" = "$1" ] || usage "found ${1:-no folder}"
[ "${2:---small}" = --small ] || usage "found $2"
[ $# -le 2 ] || usage "found $3"
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python}
budget=480 # seconds for all parts
export DIMO_JAX_CACHE="${DIMO_JAX_CACHE:-$out/cache}"
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$DIMO_JAX_CACHE/programs}"
failed=()
: > "$out/summary.md"

# Runs a command for at most $2 seconds of what is left, its output in $1.txt and in the summary.
part() {
    local name=$1 limit=$2 left=$((budget - SECONDS)) began=$SECONDS code=0
    shift 2
    [ "$limit" -le "$left" ] || limit=$left
    printf '\n## %s\n\n    %s\n\n' "$name" "$*" | tee -a "$out/summary.md"
    if [ "$limit" -lt 5 ]; then
        code=124
        echo "no time was left" > "$out/$name.txt"
    else
        timeout --kill-after=5 "$limit" "$@" > "$out/$name.txt" 2>&1 || code=$?
    fi
    # Warnings and progress stay in the file alone.
    { echo '```'; grep -v -e '^[IW][0-9]\{4\} ' -e '^WARNING' "$out/$name.txt" | tail -40; echo '```'; } | tee -a "$out/summary.md"
    if [ "$code" != 0 ]; then
        failed+=("$name")
        [ "$code" != 124 ] || echo "(ended after $limit s, its limit)" | tee -a "$out/summary.md"
    fi
    printf '\n%d s, exit code %d\n' $((SECONDS - began)) "$code" | tee -a "$out/summary.md"
}

contract='test_random_scenes and (40-56-1 or 17-33-0) or degenerate or extreme or thousands'
other='test_random_scenes and pallas and 40-56-1'
rasterize=(--peers --repeats=9)
step=(--preset=paper --repeats=7)
train=(--preset=paper --num_steps=200)
if [ $# = 2 ]; then
    contract='test_no_gaussians and not pallas'
    other='test_no_gaussians and pallas'
    fastest=$("$python" -c 'from dimo_jax.render import choose_backend; print(choose_backend())')
    rasterize=(--peers --repeats=1 --batch=0 --scenes=small "--backends=$fastest")
    step=(--preset=smoke --repeats=1)
    train=(--preset=smoke --num_steps=8)
fi
few=(--set=data.source.num_motions=8 --set=data.source.num_frames=6 --set=data.source.num_train_views=4)

part machine 40 "$python" -c 'import platform, subprocess
from importlib.metadata import PackageNotFoundError, version
import jax
print(*(device.device_kind for device in jax.devices()), "| Python", platform.python_version())
for name in ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu", "flax", "numpy", "gsplat", "splax", "torch"):
    try:
        print(name, version(name))
    except PackageNotFoundError:
        print(name, "is not installed")
try:
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    print(subprocess.run(["nvidia-smi", query, "--format=csv"], capture_output=True, text=True).stdout)
except FileNotFoundError:
    print("no nvidia-smi is here")'
part contract 170 "$python" -m pytest -q -n0 -o cache_dir="$out/cache/pytest" -rs tests/render/test_contract.py -k "$contract"
# On Hopper and newer the parts before and after are of Mosaic GPU; this is the other compiler.
part triton 60 env DIMO_JAX_PALLAS=triton "$python" -m pytest -q -n0 -o cache_dir="$out/cache/pytest" -rs tests/render/test_contract.py -k "$other"
part rasterize 100 "$python" -m bench.rasterize "${rasterize[@]}"
part train 130 "$python" -m bench.train "${train[@]}"
part step 130 "$python" -m bench.step "${step[@]}" "${few[@]}"

{
    printf '\n%d s in all; ' "$SECONDS"
    if [ ${#failed[@]} = 0 ]; then echo "every part ended well."; else echo "failed: ${failed[*]}."; fi
} | tee -a "$out/summary.md"
[ ${#failed[@]} = 0 ]
