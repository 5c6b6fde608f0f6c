import os

import pytest
import torch

# Compiled in this process: a pool of compiling ones imports torch in each, which is most of what a test of it costs.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The notebook, pages, wheel and sharded trainings first: at the end one worker would wait for another."""
    items.sort(key=lambda item: item.path.parent.name != "tests")


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    """Small tensors are fastest on one thread, and every test starts from the same random numbers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
