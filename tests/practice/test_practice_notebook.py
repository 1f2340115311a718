"""`drill()` and `interview()` in a notebook, their buttons pressed as a learner presses them."""

import asyncio
import json

import ipywidgets as widgets
import pytest

from autograde import drill, interview
from autograde.practice import notebook
from autograde.practice.session import Interviews

RIGHT = "import torch\n\ndef causal_mask(n, past=0):\n    return torch.ones(n, past + n, dtype=torch.bool).tril({})\n"
SEEN = "each token also sees the next one"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LABKIT_NO_PROGRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


class Shell:
    """As much of a kernel as the interview asks of one."""

    def __init__(self):
        self.user_ns, self.cells = {}, []

    def set_next_input(self, text, replace):
        self.cells.append(text)


@pytest.fixture
def shell(monkeypatch):
    made = Shell()
    monkeypatch.setattr(notebook, "kernel_shell", lambda: made)
    return made


def inside(box, kind=widgets.Widget) -> list:
    children = [one for child in getattr(box, "children", ()) for one in [child, *inside(child)]]
    return [one for one in children if isinstance(one, kind)]


def text(box) -> str:
    return "\n".join(one.value for one in inside(box, widgets.HTML | widgets.HTMLMath))


def press(box, label: str) -> None:
    (button,) = [one for one in inside(box, widgets.Button) if label in one.description]
    button.click()


def test_a_card_is_thought_about_seen_and_rated(home):
    box = drill("en", "T03", new=2)
    assert "What is absolute positional encoding" in text(box) and "bag of words" not in text(box)
    press(box, "Show the answer")
    assert "bag of words" in text(box) and r"\(\sqrt d\)" in text(box)
    press(box, "3 good")
    assert "Next time: in 10 min." in text(box) and "T03.f1" in text(box)
    press(box, "Show")
    press(box, "4 easy")
    press(box, "Show")  # the first comes again, since it is being learned
    assert "T03 ·" in text(box)
    press(box, "3 good")
    assert "Done for now: 3 rated." in text(box)
    stored = json.loads((home / "drill.json").read_text(encoding="utf-8"))
    assert {name: [rating for _, rating in one["ratings"]] for name, one in stored.items()} == {
        "T03": [3, 3],
        "T03.f1": [4],
    }


def test_the_drill_speaks_chinese():
    box = drill(lang="zh", topic="T03")
    press(box, "看答案")
    assert "词袋" in text(box) and [b.description for b in inside(box, widgets.Button)][0] == "1 忘了"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: drill("fr"), "`lang` is one of 'en', 'zh', and not 'fr'"),
        (lambda: drill(topic="ropes"), "did you mean rope?"),
        (lambda: drill(new=-1), "a whole number"),
        (lambda: interview(difficulty="brutal"), "`difficulty` is one of"),
        (lambda: interview(minutes=0), "more than 0"),
        (lambda: interview(minutes="45"), "more than 0"),
        (lambda: interview(topic="04_rope", difficulty="easy"), "no coding task on 04_rope is easy"),
    ],
)
def test_what_cant_be_had_is_told_in_one_sentence(call, told, home):
    with pytest.raises(notebook.CantPractice, match=told) as error:
        call()
    assert "\n" not in str(error.value) and not home.exists()


def masked(shell) -> widgets.VBox:
    """An interview whose task is causal_mask, with its clock started."""
    for seed in range(99):
        box = interview("01_attention", "easy", seed=seed, folder="out")
        if "causal_mask" in text(box):
            break
        Interviews().keep(None)
        shell.cells.clear()
    press(box, "Start the clock")
    return box


def test_a_whole_interview(shell, home, tmp_path):
    box = masked(shell)
    (cell,) = shell.cells
    assert cell == (tmp_path / "out" / "causal_mask.py").read_text(encoding="utf-8")
    assert "26:59 left" in text(box) or "27:00 left" in text(box)
    exec(RIGHT.format("past + 1"), shell.user_ns)
    assert SEEN not in text(box)
    press(box, "I'm done")
    assert SEEN in text(box)
    press(box, "Go on")
    for rating in ("1 again", "4 easy"):
        press(box, "Show the answer")
        inside(box, widgets.Checkbox)[0].value = True
        press(box, rating)
    assert "A senior interviewer would ask next" in text(box) and SEEN in text(box)
    assert "Solve it in the chapter" in text(box)
    (past,) = Interviews().past()
    assert [len(answer["told"]) for answer in past["answers"]] == [1, 1] and Interviews().current() is None
    assert (tmp_path / "out" / "review.html").is_file()
    assert {"drill.json", "interviews.json"} <= {path.name for path in home.iterdir()}


def test_one_that_was_left_goes_on_where_it_stood(shell):
    box = masked(shell)
    exec(RIGHT.format("past"), shell.user_ns)
    press(box, "I'm done")
    again = interview()
    assert "Show the answer" in [button.description for button in inside(again, widgets.Button)]
    assert Interviews().current().result["earned"] == 2.0


def test_when_the_time_is_over_the_code_is_checked_unasked(shell):
    async def waited():
        box = interview("01_attention", "easy", minutes=0.0001, folder="out")
        press(box, "Start the clock")
        await box_changed(box)
        return text(box)

    async def box_changed(box):
        for _ in range(100):
            await asyncio.sleep(0.02)
            if "not implemented yet" in text(box):
                return

    shell.user_ns |= dict.fromkeys(["causal_mask", "padding_mask"], _unwritten)
    assert "not implemented yet" in asyncio.run(waited())


def _unwritten(*given, **named):
    raise NotImplementedError
