"""`bench seeds` asks the reference and the alternatives, and tells what was refused."""

from autograde import bench, bench_seeds
from autograde.exercises import find


def test_a_right_solution_is_refused_on_no_seed_and_it_says_how_many_were_asked(capsys):
    assert bench.main(["seeds", "softmax", "--most", "3", "--jobs", "1"]) == 0
    asked = 3 * (1 + len(find("softmax").alternatives))
    assert capsys.readouterr().out.split()[:3] == ["softmax", str(asked), "asked"]


def test_what_is_refused_is_told_with_its_seed(monkeypatch):
    monkeypatch.setattr(bench_seeds, "reference", lambda name: lambda x: x)
    asked, found = bench_seeds._refused("softmax", 5, 6, 1)
    assert asked == 1 + len(find("softmax").alternatives)
    assert len(found) == 1 and found[0].startswith("seed 5, the reference: gives the right result")


def test_the_reference_is_the_chapters_own():
    assert bench_seeds.reference("scaled_dot_product_attention").__name__ == "scaled_dot_product_attention"
