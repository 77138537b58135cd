"""The command line around its commands: what it says of itself, --quiet and --verbose, defaults, completion."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import cli
from transmeter.commands import options
from transmeter.commands.options import BYTES
from transmeter.util.suggestions import did_you_mean

ROOT = Path(__file__).resolve().parent.parent
VA, HUNGARIAN = (str(ROOT / f"data/tabular/heart_{n}.csv") for n in ("va", "hungarian"))
SIZES = ("rank", VA, HUNGARIAN, "--scorer", "source_size")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """A working directory and a cache of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "app"))


def run(*args):
    """Result of the command."""
    return CliRunner().invoke(cli.main, [str(a) for a in args])


def test_help_is_in_sections_and_without_what_takes_seconds_to_import():
    text = run("--help").stdout
    order = [text.index(part) for part in ("\nData:\n  check ", "\nModels:\n  calibrate ", "\n  compress   ")]
    assert order == sorted(order)
    code = "import sys, cli; assert not {'torch', 'pandas', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_command_has_an_example_of_its_own_options():
    for name, command in cli.main.commands.items():
        text = " ".join((command.help or "").split())
        assert f"Example: transmeter {name}" in text, name
        words = text.partition(f"Example: transmeter {name}")[2].split()
        known = {o for p in command.params for o in p.opts}
        assert {w for w in words if w.startswith("--")} <= known, name


def test_verbose_says_what_is_decided_and_quiet_nothing():
    loud, plain, silent = (run(*flags, *SIZES, "--shots", 3) for flags in (("--verbose",), (), ("-q",)))
    assert loud.stdout.split()[:-1] and loud.exit_code == plain.exit_code == silent.exit_code == 0
    for text in ("heart_va: 200 rows", "labels are in column 'label'", "columns matched by name", "scorer source_size"):
        assert text in loud.stderr
    assert plain.stderr == "Warning: scorer source_size uses all labelled rows: shots are ignored\n"
    assert silent.stderr == "" and silent.stdout.splitlines()[0] == plain.stdout.splitlines()[0]
    found = run("-q", "-v", *SIZES)
    assert found.exit_code == 2 and "--quiet and --verbose are both given" in found.stderr
    assert "Error: " in run("-q", "rank", "none.csv", HUNGARIAN).stderr


@pytest.mark.parametrize(
    "text, size", [("2GB", 2 * 10**9), ("1.5m", 1_500_000), ("800", 800), ("0.5", None), ("0GB", None)]
)
def test_a_size_is_of_one_byte_or_more(text, size):
    if size is None:
        with pytest.raises(click.BadParameter, match=f"'{text}' is not a size: give bytes, or a number with MB or GB"):
            BYTES.convert(text, None, None)
    else:
        assert BYTES.convert(text, None, None) == size


def test_libraries_draw_no_progress_bars():
    code = (
        "from transmeter.commands.options import listen; listen(False, False); import tqdm; list(tqdm.tqdm(range(3)))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stderr == ""


def test_a_file_sets_defaults_that_the_command_line_overrides(tmp_path):
    (tmp_path / "transmeter.toml").write_text('[rank]\nscorer = "source_size"\nformat = "json"\nset = []\n')
    assert '"scorer": "source_size"' in run("rank", VA, HUNGARIAN).stdout
    assert run("rank", VA, HUNGARIAN, "--format", "csv").stdout.startswith("rank,tie_group")
    other = tmp_path / "other.toml"
    other.write_text("[rank]\nshots = 0\n")
    found = run("--config", other, *SIZES)
    assert found.exit_code == 2 and "Invalid value for '--shots'" in found.stderr


@pytest.mark.parametrize(
    "text, message",
    [
        ("[rank\n", "cannot be read as TOML"),
        ("shots = 5\n", "[shots] is not a command: give sections such as [rank]"),
        ('[rank]\nset = "steps=5"\n', "set of rank may repeat: give a list"),
        ('[compress]\nmethod = ["kprune"]\n', "'method' is not an option of compress to set here"),
    ],
)
def test_a_bad_file_of_defaults_is_refused(text, message, tmp_path):
    (tmp_path / "transmeter.toml").write_text(text)
    found = run(*SIZES)
    assert found.exit_code == 2 and message in found.stderr.splitlines()[-1]


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_has_a_script_for_every_shell(shell):
    from click.shell_completion import shell_complete

    @click.command()
    def script():
        shell_complete(cli.main, {}, "transmeter", "_TRANSMETER_COMPLETE", f"{shell}_source")

    assert "_TRANSMETER_COMPLETE" in CliRunner().invoke(script).stdout


def test_completion_knows_commands_and_options():
    def completed(words):
        given = os.environ | {"_CLI_PY_COMPLETE": "bash_complete", "COMP_WORDS": words}
        given["COMP_CWORD"] = str(len(words.split()) - 1)
        command = [sys.executable, str(ROOT / "cli.py")]
        return subprocess.run(command, env=given, capture_output=True, text=True).stdout

    assert completed("cli.py ra") == "plain,rank\n" and completed("cli.py rank --sh") == "plain,--shots\n"


@given(st.text(alphabet="abcdefgh_", min_size=5, max_size=12), st.integers(0, 11), st.lists(st.text(alphabet="xyz")))
def test_a_word_with_a_letter_left_out_is_recognised(word, place, others):
    place %= len(word)
    typed = word[:place] + word[place + 1 :]
    known = [*others, word]
    assert did_you_mean(typed, known) == f", did you mean '{word}'?"
    assert did_you_mean(typed, []) == ""


@pytest.mark.skipif(not Path("/proc/loadavg").exists(), reason="the load of the last minute knows of no process yet")
def test_another_process_that_runs_is_seen():
    words = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as busy:
        busy.stdout.readline()
        assert options.others_running() >= 1
        busy.kill()


def test_a_ranking_of_tables_imports_what_it_needs_and_threads_are_bounded():
    """transformers, datasets and POT take two CPU seconds and more; waiting threads that spin take those of others."""
    code = f"""
import os, sys, click, cli
from transmeter.commands import options
options.others_running = lambda: 99.0
cli.main(["--threads", "1", *{[str(part) for part in SIZES]!r}], standalone_mode=False)
import torch
print({{"transformers", "datasets", "ot"}} & set(sys.modules), torch.get_num_threads(), os.environ["OMP_WAIT_POLICY"])
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set() 1 PASSIVE", done.stderr
    assert run("--threads", 0, *SIZES).exit_code == 2
