"""How many wrong versions of the code its tests notice: a random sample of mutants of one room.

mutmut makes them (numbers, comparisons, signs, arguments, branches, assignments), in decorated functions and in bodies
of classes too, which its own runner leaves out. Strings stay as they are: most are wording. Each stands in a copy of
src/, on which the room's tests run until one fails or takes too long. What survives is printed as a diff, to be read:
it is equivalent, or a test is missing. ``pip install mutmut`` first.

    python benchmarks/mutants.py penalties --count 20 --seed 0
"""

import argparse
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import libcst
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators, operator_string
from mutmut.mutation.pragma_handling import IgnoredCode

ROOT = Path(__file__).parents[1]
TESTS = {  # of each room, the cheapest first
    "penalties": ["tests/penalties"],
    "step_sizes": ["tests/step_sizes"],
    "certifying": ["tests/certifying", "tests/regularizer/test_certificate.py"],
    "paths/statistics": ["tests/paths/statistics", "tests/paths/test_repeats.py"],
}


class _DecoratedToo(MutationVisitor):
    def _skip_node_and_children(self, node):
        return not isinstance(node, libcst.FunctionDef) and super()._skip_node_and_children(node)


def mutants(path):
    """The source of every mutant of a file, made when it is asked for."""
    code = path.read_text(encoding="utf-8")
    wrapper = libcst.MetadataWrapper(libcst.parse_module(code))
    operators = [each for each in mutation_operators if each[1] is not operator_string]
    visitor = _DecoratedToo(operators, IgnoredCode(set(), set(), set()))
    module = wrapper.visit(visitor)
    return [(lambda m=m: module.deep_replace(m.original_node, m.mutated_node).code) for m in visitor.mutations]


def survives(copy, tests):
    command = ["timeout", "1200", sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    env = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=TESTS)
    for name, default in (("--count", 20), ("--seed", 0)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    every = [(f, m) for f in sorted((ROOT / "src/torchshrink" / options.room).glob("*.py")) for m in mutants(f)]
    sample = random.Random(options.seed).sample(every, min(options.count, len(every)))
    alive = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(ROOT / "src", Path(folder, "src"), ignore=shutil.ignore_patterns("__pycache__"))
        if not survives(copy, TESTS[options.room]):
            sys.exit("the tests fail without any mutant")
        for path, mutant in sample:
            before, after = path.read_text(encoding="utf-8"), mutant()
            place = copy / path.relative_to(ROOT / "src")
            place.write_text(after, encoding="utf-8")
            if survives(copy, TESTS[options.room]):
                alive += 1
                print(path.name, *difflib.unified_diff(before.splitlines(), after.splitlines(), n=0), sep="\n")
            place.write_text(before, encoding="utf-8")
    print(
        f"{options.room}, seed {options.seed}: {len(sample) - alive} of {len(sample)} mutants killed, of {len(every)}"
    )


if __name__ == "__main__":
    main()
