import gc
import os

import pytest
import torch

# Compiled in this process: a pool of compiling ones imports torch in each, which is most of what a test of it costs.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
# No power is lost in a test: no file of this process need wait for the disk, 3 ms each, though each must be open. What
# calls fsync, and when, is tested with functions of the tests' own; the processes that tests start have the real one.
os.fsync = os.fstat


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The notebook, pages, wheel and sharded trainings first: at the end one worker would wait for another."""
    items.sort(key=lambda item: item.path.parent.name != "tests")


def pytest_collection() -> None:
    """What is imported stays: to look for garbage in it, time and again, finds next to none."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Searches for garbage took a tenth of the time of tests that trace, a sixth where a framework asks for them.

    The millions of imported objects are left out of them from here on, and they are as rare as a graph of a traced
    model, which is thousands of objects that are needed, asks for.
    """
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


def pytest_sessionfinish() -> None:
    """Hypothesis, which may be imported now, asks the collector for what it does not say of frozen objects."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    """Small tensors are fastest on one thread, and every test starts from the same random numbers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
