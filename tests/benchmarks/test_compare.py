"""What a comparison says: of noise nothing, of a change its direction."""

import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare, run, running, verdict
from benchmarks.figures import ROOT, Row, Run, Sample, row_of


def noisy(seed: int, pairs: int, change: float = 1.0) -> tuple[list[float], list[float]]:
    """Pairs on a machine whose mood swings by half, each run with noise of 3 % of its own."""
    draw = random.Random(seed)
    base, changed = [], []
    for _ in range(pairs):
        mood = draw.uniform(0.5, 1.0)
        base.append(1e6 * mood * draw.gauss(1, 0.03))
        changed.append(1e6 * mood * change * draw.gauss(1, 0.03))
    return base, changed


@pytest.mark.parametrize("pairs", [8, 12, 20])
def test_noise_is_within_noise(pairs: int) -> None:
    """But once in a hundred times, which is what the interval says of itself."""
    told = [verdict.judge(*noisy(seed, pairs), more_is_better=True).words for seed in range(500)]
    assert told.count("within noise") >= 485


def test_a_fifth_less_is_slower_on_a_machine_that_swings_by_half() -> None:
    for seed in range(50):
        told = verdict.judge(*noisy(seed, 8, change=0.8), more_is_better=True)
        assert told.words == "slower"
        assert told.low <= told.ratio <= told.high < 1


def test_more_of_a_time_is_slower_and_less_is_faster() -> None:
    assert verdict.judge(*noisy(1, 8, change=1.2), more_is_better=False).words == "slower"
    assert verdict.judge(*noisy(1, 8, change=0.8), more_is_better=False).words == "faster"
    assert verdict.judge(*noisy(1, 8, change=1.2), more_is_better=True).words == "faster"


def test_one_wild_run_does_not_hide_a_change() -> None:
    base, changed = noisy(3, 20, change=0.8)
    changed[5] *= 10
    assert verdict.judge(base, changed, more_is_better=True).words == "slower"


def test_with_too_few_pairs_nothing_is_said() -> None:
    told = verdict.judge(*noisy(1, 7, change=0.5), more_is_better=True)
    assert (told.words, told.high) == ("too few pairs", math.inf)


@pytest.mark.parametrize(
    ("pairs", "one_percent", "five_percent"),
    [(5, None, None), (6, None, 0), (8, 0, 3), (10, 3, 8), (12, 7, 13), (15, 15, 25), (20, 37, 52)],
)
def test_the_cut_is_the_one_of_the_published_tables(
    pairs: int, one_percent: int | None, five_percent: int | None
) -> None:
    """The critical values of the signed-rank test, two-sided."""
    assert verdict.cut_off(pairs, 0.99) == one_percent
    assert verdict.cut_off(pairs, 0.95) == five_percent


def test_rows_are_judged_each_by_its_unit() -> None:
    found = [
        (
            row_of(Sample(name, base, unit), [Run(base)]),
            row_of(Sample(name, change, unit), [Run(change)]),
        )
        for name, unit in (("rate", "turns/s"), ("wait", "ms"))
        for base, change in zip(*noisy(1, 8, change=1.3))
    ]
    told = compare.verdicts(found)
    assert {name: v.words for name, (_, v) in told.items()} == {"rate": "faster", "wait": "slower"}


def test_the_rows_that_are_compared_exist() -> None:
    assert {name for job in run.chosen(compare.ROWS, 1.0) for name in job.rows} >= set(compare.ROWS)


def test_runs_that_are_over_at_once_begin_again_with_twice_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[float] = []

    def sample(side: compare.Side, name: str, scale: float) -> tuple[list[Row], str]:
        asked.append(scale)
        if scale < 1:
            raise running.TooShort("over at once")
        return [row_of(Sample(name, 1.0, "turns/s"), [Run(1.0)])], ""

    monkeypatch.setattr(compare, "sample", sample)
    sides = (compare.Side(name, Path(), Path()) for name in ("base", "change"))
    found, why = compare.pairs(*sides, "rate", 2, 0.25)
    assert asked == [0.25, 0.5, 1, 1, 1, 1]
    assert len(found) == 2
    assert not why
    assert "rate: runs of scale 0.25 are too short here; 0.5 now" in capsys.readouterr().out


# ── what it is compared with ──


def git(folder: Path, *words: str) -> str:
    """Git, as somebody."""
    somebody = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    told = subprocess.run(
        ["git", *somebody, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return told.stdout.strip()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two commits that stands where ours does."""
    folder = tmp_path / "clone"
    (folder / "api").mkdir(parents=True)
    (folder / "runtime").mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for text in ("one", "two"):
        (folder / "api" / "a.py").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", text)
    monkeypatch.setattr(compare, "ROOT", folder)
    return folder


def subject(ref: str) -> str:
    """What a commit says of itself."""
    return compare.git("log", "-1", "--format=%s", ref)


def test_a_clean_tree_is_compared_with_the_commit_before(clone: Path) -> None:
    assert subject(compare.landed()) == "one"


def test_an_edited_program_is_compared_with_the_last_commit(clone: Path) -> None:
    (clone / "runtime" / "new.py").write_text("three")
    assert subject(compare.landed()) == "two"


def test_edited_pages_are_no_edited_program(clone: Path) -> None:
    (clone / "README.md").write_text("words")
    assert subject(compare.landed()) == "one"


def test_with_a_remote_it_is_where_this_branch_left_its_main(clone: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(clone), "upstream")
    git(clone, "remote", "add", "origin", str(tmp_path / "upstream"))
    git(clone, "fetch", "--quiet", "origin")
    for text in ("three", "four"):
        (clone / "api" / "a.py").write_text(text)
        git(clone, "commit", "--quiet", "-am", text)
    assert subject(compare.landed()) == "two"


def test_a_commit_is_checked_out_for_a_while_and_leaves_nothing(clone: Path) -> None:
    with compare.checked_out("HEAD~1") as tree:
        assert (tree / "api" / "a.py").read_text() == "one"
    assert git(clone, "worktree", "list").count("\n") == 0


def test_an_unknown_base_is_said_by_git(clone: Path) -> None:
    with pytest.raises(SystemExit, match="nowhere"):
        compare.git("log", "-1", "nowhere")


def test_an_environment_sees_its_own_copy_of_the_package(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for part in ("api", "runtime", "benchmarks", "examples"):
        shutil.copytree(ROOT / part, tree / part)
    side = compare.installed("base", tree, tmp_path / "base")
    code = "import skerry.runtime.ports, msgspec; print(skerry.runtime.ports.__file__)"
    told = subprocess.run(
        [str(side.python), "-c", code], cwd=side.load, check=True, capture_output=True, text=True
    )
    assert Path(told.stdout.strip()) == tmp_path / "base/site/skerry/runtime/ports.py"


def test_a_row_that_a_side_cannot_run_is_said_with_its_reason(tmp_path: Path) -> None:
    load = tmp_path / "load"
    (load / "benchmarks").mkdir(parents=True)
    (load / "benchmarks" / "run.py").write_text("raise SystemExit('there is no such verb')")
    side = compare.Side("base", Path(sys.executable), load)
    found, why = compare.pairs(side, side, "keyed_counter_10k", 1, 1.0)
    assert (found, why) == ([], "the base cannot run it: there is no such verb")
