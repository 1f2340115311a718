"""The site's pages as files: whole, linked, readable without a network, and without a solution."""

import re
from urllib.parse import unquote, urlsplit

import pytest
from real_course import chapters
from small_site import KEPT, NOT_RUN, RUN, ids, png, read

from autograde import repository
from autograde.authoring import bank
from autograde.authoring.build import lines_of_solutions
from autograde.repository import ROOT
from website import sources, verdicts
from website.extension import SearchBoth

pytestmark = pytest.mark.slow
LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


@pytest.fixture(scope="module")
def pages(html):
    return sorted(page for page in html.rglob("*.html") if "_static" not in page.parts)  # there are templates there


def test_every_page_kind_is_there(html, pages):
    names = {page.relative_to(html).as_posix() for page in pages}
    expected = {"index", "drill/index", "drill/T05", "verdicts", "search", RUN, KEPT, NOT_RUN, *sources.GUIDES}
    assert names >= {f"{name}.html" for name in expected}


def test_every_link_inside_the_site_leads_somewhere(html, pages):
    broken = []
    for page in pages:
        for tag in read(page).find_all(["a", *LOADS]):
            link = urlsplit(tag.get(LOADS.get(tag.name, "href")) or "")
            if link.scheme or link.netloc or not (link.path or link.fragment):
                continue
            target = (page.parent / unquote(link.path)).resolve() if link.path else page
            there = target.is_file() and target.is_relative_to(html.resolve())
            if there and link.fragment and target.suffix == ".html":
                there = unquote(link.fragment) in ids(target)
            if not there:
                broken.append(f"{page.relative_to(html)}: {link.geturl()}")
    assert not broken


def test_no_page_asks_another_server_for_anything(html, pages):
    for page in pages:
        for tag in read(page).find_all(list(LOADS)):
            if tag.name != "link" or tag.get("rel") != ["canonical"]:
                assert not re.match(r"(https?:)?//", tag.get(LOADS[tag.name]) or ""), f"{page.name}: {tag}"
    for style in html.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style.name


def test_every_picture_says_in_words_what_it_shows(pages):
    silent = [tag for page in pages for tag in read(page).select("article img") if not (tag.get("alt") or "").strip()]
    assert not silent


def test_figures_are_files_and_lie_on_a_plate(html):
    figures = read(html / f"{KEPT}.html").select("a.course-figure > img")
    assert figures
    assert all((html / KEPT).parent.joinpath(image["src"]).resolve().read_bytes() == png() for image in figures)


def test_no_page_shows_a_solution(html):
    for path in (RUN, KEPT, NOT_RUN):
        chapter = next(chapter for chapter in chapters() if chapter.path == path)
        shown = {line.strip() for line in read(html / f"{path}.html").get_text().splitlines()}
        stub = {
            line.strip() for cell in read(html / f"{path}.html").select("pre") for line in cell.get_text().splitlines()
        }
        given = {line.strip() for cell in chapter.cells if cell.kind != "exercise" for line in cell.source.splitlines()}
        assert "raise NotImplementedError" in stub
        assert not ({line.strip() for line in lines_of_solutions(chapter)} - given - {""}) & (shown | stub)


def test_exercises_come_with_folded_hints_and_one_report(html):
    article = read(html / f"{RUN}.html").find("article")
    folds = [tag.get_text() for tag in article.select("details > summary")]
    assert [fold for fold in folds if fold.startswith("Hint")] == ["Hint 1", "Hint 2", "Hint 3"]
    assert not article.select("details[open]")
    assert article.get_text().count("softmax: 2 of 2 points") == 1


def test_what_a_page_can_t_show_is_told_or_left_out(html):
    text = read(html / f"{KEPT}.html").get_text()
    assert "printed <b>" in text and "\x1b" not in text
    assert "VBox()" not in text and "a warning" not in text
    assert "sliders stand here" in text


def test_a_chapter_that_was_not_run_says_so(html):
    said = "had not been run when the site was built"
    assert said in read(html / f"{NOT_RUN}.html").select_one(".admonition.warning").get_text()
    assert "those of a solved run" in read(html / f"{KEPT}.html").select_one(".admonition.tip").get_text()
    assert said not in read(html / f"{KEPT}.html").get_text()


@pytest.mark.parametrize("path", [RUN, KEPT])
def test_launch_buttons_come_from_the_slug(html, path):
    links = {tag.get("href") for tag in read(html / f"{path}.html").find_all("a")}
    notebook = f"notebooks/{path}.ipynb"
    assert {repository.binder_url(notebook), repository.colab_url(notebook)} <= links


def test_formulas_are_mathml_and_keep_their_latex(html):
    formula = read(html / f"{RUN}.html").select_one("div.course-formula math")
    assert formula["display"] == "block" and "\\frac" in formula["alttext"]


def test_every_formula_of_the_course_can_be_set():
    from latex2mathml.converter import convert

    cells = [cell.source for chapter in chapters() for cell in chapter.of("markdown")]
    entries = [
        text for entry in bank.load(ROOT).entries for text in (*entry["depth"].values(), *entry["trap"].values())
    ]
    found = re.findall(r"\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+)\$", "\n".join(cells + entries), re.DOTALL)
    assert len(found) > 300
    for block, inline in found:
        assert convert(block or inline).startswith("<math")


def test_the_page_of_verdicts_has_every_claim_and_takes_verdicts_from_runs(html):
    page = read(html / "verdicts.html")
    rows = {row.strong.get_text(): row for row in page.select("tbody tr")}
    assert rows.keys() == bank.load(ROOT).claims.keys()
    said = rows["T05.3"].get_text()
    assert "wrong" in said and "It *is* a sum_of [two] things | no `more`, < 3 and $5." in said
    assert bank.load(ROOT).claims["T04.9"]["no_run"]["en"] in rows["T04.9"].get_text()
    link = rows["T05.3"].find("a", string="Rotary position embedding")
    assert link["href"].startswith(f"{KEPT}.html#claim-")
    assert "experiment T06.1" in rows["T06.1"].get_text().replace("Experiment", "experiment")


def test_of_two_runs_of_a_claim_the_last_counts():
    from website.runs import Run

    def run(word):
        text = f"Claim T01.1: {word}. Because."
        return Run("k", {"c": [{"output_type": "display_data", "data": {"text/plain": text}}]})

    found = verdicts.found({"a": run("wrong"), "b": run("correct")})
    assert found == {"T01.1": verdicts.Found("b", "correct", "Because.")}


def test_every_question_has_a_card_with_links_to_its_chapters(html):
    for name in bank.load(ROOT).questions:
        page = read(html / "drill" / f"{name}.html")
        assert page.select_one(f"#card-{name.lower()}") is not None
        assert page.select_one('details[lang="zh"]') is not None
    links = {tag.get("href") for tag in read(html / "drill" / "T05.html").select("article a")}
    assert f"../{KEPT}.html" in links and "../verdicts.html#verdicts-t05" in links


def test_what_is_made_again_is_not_written_again(html, tmp_path):
    solved = {RUN: sources.build.sources(ROOT, [RUN])[RUN]}
    sources.write(tmp_path, solved, tmp_path / "runs")
    (tmp_path / "source" / "old.md").write_text("# Old")
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "old.html").write_text("Old")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*") if file.stem != "old"}
    sources.write(tmp_path, solved, tmp_path / "runs")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.*")} == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RoPE rotates", ["RoPE", "rotates"]),
        ("位置", ["位", "置", "位置"]),
        ("用RoPE旋转 q_1", ["用", "RoPE", "旋", "转", "旋转", "q_1"]),
    ],
)
def test_the_index_splits_chinese_into_pairs(text, words):
    assert SearchBoth({}).split(text) == words
