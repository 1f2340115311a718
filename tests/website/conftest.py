import pytest
import small_site


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The folder of the small site's pages."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_NO_PROGRESS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        assert small_site.make(folder) == 0, "Sphinx has found a fault: see what it printed"
    return folder / "html"
