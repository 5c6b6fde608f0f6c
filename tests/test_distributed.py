"""The same in one process and in two: weights, values, counts, certificates; under DDP, FSDP2 and tensor parallelism.

One pair of processes runs all cases of spread_cases.py; the tests compare what it says with this process alone.
"""

import multiprocessing
import os
import sys
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

import spread_cases as cases
import torchshrink as ts
from torchshrink import distributed

WORLD = 2
DEADLINE = 240.0
TOLERANCE = {"rtol": 0.0, "atol": 1e-6}

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo"
)


def sharded(*case):
    """A case as a parameter, skipped where this torch cannot run it."""
    unable = pytest.mark.skipif(not cases.runs_here(case), reason="fully_shard of torch 2.6 does not run on CPUs")
    return pytest.param(case, marks=unable, id=" · ".join(map(str, case[1:] or case)))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, worker_id):
    """The results of each process. Of several pytest workers the first runs them, and the others wait."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "ranks"
    done = folder / "done"
    try:
        folder.mkdir()
    except FileExistsError:
        end = time.monotonic() + DEADLINE + 10
        while not done.exists() and time.monotonic() < end:
            time.sleep(0.2)
    else:
        try:
            run_all(folder)
        finally:
            done.touch()
    saved = [folder / f"{rank}.pt" for rank in range(WORLD)]
    if not all(path.exists() for path in saved):
        said = "\n".join(path.read_text() for path in sorted(folder.glob("*.txt")))
        pytest.fail(said or f"the processes did not end within {DEADLINE:g} s")
    return [torch.load(path, weights_only=False) for path in saved]


def run_all(folder):
    """Start the processes, and leave none behind. Where it can be, they are forked from one that imports for all."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.set_forkserver_preload([cases.__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where that one finds what it imports
        context = torch.multiprocessing.start_processes(
            cases.work, (WORLD, str(folder)), nprocs=WORLD, join=False, daemon=True, start_method=method
        )
    end = time.monotonic() + DEADLINE
    try:
        while time.monotonic() < end and not context.join(timeout=1.0):
            pass
    except (torch.multiprocessing.ProcessRaisedException, torch.multiprocessing.ProcessExitedException):
        pass  # each has left what went wrong in a file
    finally:
        for process in context.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def alone():
    """The results of this process alone, each computed once."""
    known = {}

    def result(case):
        if case not in known:
            torch.manual_seed(0)
            known[case] = cases.CASES[case]()
        return known[case]

    return result


def zeros(weights):
    return {name: (w == 0).tolist() for name, w in weights.items()}


@pytest.mark.parametrize("case", [sharded("train", *training) for training in cases.TRAININGS])
def test_training_ends_where_one_process_ends(ranks, alone, case):
    expected = alone(case)
    found = [rank[case] for rank in ranks]
    for each in found:
        torch.testing.assert_close(each["weights"], expected["weights"], **TOLERANCE)
        assert zeros(each["weights"]) == zeros(expected["weights"])
        torch.testing.assert_close(each["state"], expected["state"], **TOLERANCE)
        for when in ("value at start", "value"):
            if expected[when] is not None:
                torch.testing.assert_close(each[when], expected[when], **TOLERANCE)
        for what in ("sparsity", "summary", "weights of"):
            assert each[what] == expected[what]
        same_certificate(each["certificate"], expected["certificate"])
    assert found[0]["value"] == found[1]["value"]  # bit for bit
    assert found[0]["certificate"] == found[1]["certificate"]
    torch.testing.assert_close(found[0]["weights"], found[1]["weights"], rtol=0, atol=0)


def same_certificate(found, expected):
    assert found.keys() == expected.keys()
    for what, value in expected.items():
        if isinstance(value, float):
            assert found[what] == pytest.approx(value, abs=1e-6), what
    shares = zip(found["parameters"], expected["parameters"], strict=True)
    for a, b in [*shares, (found["worst"], expected["worst"])]:
        assert a["name"] == b["name"]
        assert a["distance"] == pytest.approx(b["distance"], abs=1e-6)
        assert a["index"] == b["index"]


def test_the_trainings_have_something_to_lose(alone):
    # Zeros that would go missing, zero rows and zero columns; else the comparison above would show little.
    for penalty in ("L1", "rows", "columns"):
        for optimizer in ("sgd", "adam"):
            found = alone(("train", "fsdp", penalty, optimizer, "auto", cases.STEPS))["sparsity"]
            assert 0 < found["zeros"] < found["total"]
            assert penalty == "L1" or 0 < found["groups_zero"] < found["groups"]


def test_value_and_its_gradient_are_those_of_one_process(ranks, alone):
    expected = alone(("values",))
    for rank in ranks:
        torch.testing.assert_close(rank["values",], expected, rtol=1e-12, atol=1e-12)
    values = [{at: each["value"] for at, each in rank["values",].items()} for rank in ranks]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    "case",
    [
        sharded(name)
        for name in (
            *("names", "after_a_forward_pass", "state", "partial_gradients"),
            *("reused_gradients", "certify_unwrapped"),
        )
    ],
)
def test_the_same_as_in_one_process(ranks, alone, case):
    expected = alone(case)
    if case == ("reused_gradients",):  # of this process's share, averaged by DDP before certify
        expected = next(rank[case] for rank in ranks)
    for rank in ranks:
        if case == ("certify_unwrapped",):
            same_certificate(rank[case], expected)
        elif case == ("names",):
            assert rank[case] == expected
        else:
            torch.testing.assert_close(rank[case], expected, **TOLERANCE)


@pytest.mark.parametrize("how", cases.SPREADS[1:])
@pytest.mark.parametrize("call", ["value", "attach", "sparsity"])
def test_a_regularizer_made_before_the_sharding_says_so(ranks, how, call):
    for rank in ranks:
        said = rank["stale",][f"{how} {call}"]
        assert said.startswith("AttachmentError: 0.weight: sharding has replaced")
        assert "make the Regularizer after fully_shard" in said
        assert "\n" not in said


@pytest.mark.parametrize("case", [sharded("gathered")])
def test_gathered_weights_are_told_from_replaced_ones(ranks, case):
    for rank in ranks:
        assert rank[case]["gathered, alive"] == "nothing raised"
        assert "no longer the one that was bound" in rank[case]["assigned"]


def test_the_older_fsdp_is_refused(ranks):
    for rank in ranks:
        assert rank["stale",]["older FSDP"].startswith("SelectionError: FullyShardedDataParallel keeps flattened")


def test_data_parallel_keeps_the_names():
    model = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert [term.name for term in ts.Regularizer(model, {"0.weight": ts.L1(1.0)}).terms] == ["0.weight"]


def test_a_plain_tensor_is_whole():
    w = torch.ones(2)
    assert not distributed.is_spread(w)
    assert distributed.whole(w) is w
    assert distributed.shard_like(w, torch.zeros(2)) is w
