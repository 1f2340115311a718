"""Which tests may run at the same time, for `python course.py test` spreads them, and what some of them need."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Iterator

import chromium
import pytest
import warm_kernels

from autograde.classroom.sandbox.isolation import NoSandbox, engine

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the processors have other work

# A shell that starts tests in the background lets everything below ignore interruptions, and some tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

WARM = "AUTOGRADE_WARM_KERNELS"  # where this session's warm kernels are
INSIST = "AUTOGRADE_TESTS_INSIST"  # what must not be missing, as in .ci/run: "sandbox", "browser", or "1" for both
APART = ("test_exercises", "test_notebooks")  # their exercises and chapters share nothing with each other
LONG = ("test_notebooks", "test_lab", "test_classroom", "test_nbgrader", "test_nbgrader_steps", "test_teaching")
LONG += ("test_binder", "test_colab_opens")


def group_of(nodeid: str) -> str:
    """What a test shares costly results with: its module, or in some the exercise or chapter that it is about."""
    path, _, name = nodeid.partition("::")
    module = path.rpartition("/")[2].removesuffix(".py")
    shared = name.partition("[")[2].partition("-")[0].removesuffix("]")
    return f"{module}/{shared}" if module in APART and shared else module


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # xdist's workers share what their session has started
        stack = contextlib.ExitStack()
        os.environ[WARM] = stack.enter_context(warm_kernels.started()) or ""
        config.add_cleanup(stack.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share costly results stand together, and first those that take long: nobody is to wait for one."""
    groups = {item: group_of(item.nodeid) for item in items}
    first = {group: place for place, group in reversed(list(enumerate(groups.values())))}
    order = {group: (group.partition("/")[0] not in LONG, place) for group, place in first.items()}
    items.sort(key=lambda item: order[groups[item]])


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported by now stays: for the garbage collector to look at it again takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Where tests run side by side, one process has all tests of a group, and the groups in their order.

    `--dist loadgroup` would do it; pytest-xdist 3.8.0 marks the groups in a place where pytest 9.2.0 does not look.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return ByGroup(config, log)


@pytest.fixture(scope="session")
def sandbox() -> str:
    """What learners' code is shut in here, such as bubblewrap. Where nothing works, what asks for it is skipped."""
    return engine()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """Chromium, driven by selenium, for all tests of this process. Where there is none, what asks for it is skipped."""
    with chromium.started(tmp_path_factory.mktemp("chromium")) as page:
        yield page


NEEDS = {"sandbox": engine, "browser": chromium.found}  # each raises one sentence where it is missing


@pytest.fixture(scope="module")
def warm() -> bool:
    """Kernels that this module's tests start are forks of one process, if that can be: see warm_kernels.py."""
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get(WARM):
            patch.setenv("JUPYTER_PATH", os.environ[WARM], prepend=os.pathsep)
        yield bool(os.environ.get(WARM))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs something that isn't here: from here, and not from the fixture, it is one line at the end."""
    for name in NEEDS.keys() & set(item.fixturenames):
        try:
            NEEDS[name]()
        except (NoSandbox, chromium.NoBrowser) as error:
            if {"1", name} & set(os.environ.get(INSIST, "").split()):
                pytest.fail(str(error), pytrace=False)
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The folder of a small site's pages. Here, since a second conftest.py would hide this one from imports."""
    import small_site  # beside the tests that ask for it

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_NO_PROGRESS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        assert small_site.make(folder) == 0, "Sphinx has found a fault: see what it printed"
    return folder / "html"
