"""What `.ci/run` makes of a junit file: a green suite in which something important was skipped is not green."""

import shutil

import pytest
from check_junit import main
from support import browser, compilers, outside

CONTRACT = [("tests.render.test_contract", f"test_values[{name}]", None) for name in ("xla", "native", "pallas")]
VIEWER = ("tests.apps.test_view_browser", "test_the_viewer", None)
BOTH = ["--need=browser", "--need=gltf-validator"]


def skip_of(function, *args):
    """The reason with which a function skips."""
    with pytest.raises(pytest.skip.Exception) as caught:
        function(*args)
    return caught.value.msg


@pytest.fixture
def check(tmp_path):
    """Checks a junit file of (module, name, why it was skipped)."""

    def run(*cases, needs=()):
        skips = [f'<skipped message="{reason}"/>' if reason else "" for *_, reason in cases]
        rows = [f'<testcase classname="{m}" name="{n}">{s}</testcase>' for (m, n, _), s in zip(cases, skips)]
        (tmp_path / "tests.xml").write_text(f"<testsuites><testsuite>{''.join(rows)}</testsuite></testsuites>")
        return main([str(tmp_path / "tests.xml"), *needs])

    return run


def test_all_that_is_needed_ran(check):
    assert check(*CONTRACT, VIEWER, needs=BOTH) == 0


def test_each_backend_has_to_have_run(check, capsys):
    assert check(*CONTRACT[:2], VIEWER) == 1
    assert "backend pallas did not run" in capsys.readouterr().err
    assert check(*CONTRACT[:2], (*CONTRACT[2][:2], "no"), VIEWER) == 1


def test_a_browser_test_may_be_skipped_only_without_a_browser(check, capsys, monkeypatch):
    pytest.importorskip("playwright", reason="no browser test without playwright (pip install playwright)")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    skipped = (*VIEWER[:2], skip_of(browser.find_browser))
    assert check(*CONTRACT, skipped) == 0
    assert "skipped: tests.apps.test_view_browser.test_the_viewer: no browser" in capsys.readouterr().out
    assert check(*CONTRACT, VIEWER, skipped, needs=["--need=browser"]) == 1
    assert check(*CONTRACT, skipped, needs=["--need=gltf-validator"]) == 0


def test_with_a_browser_some_test_has_to_use_it(check, capsys):
    assert check(*CONTRACT, needs=["--need=browser"]) == 1
    assert "no browser test ran" in capsys.readouterr().err


def test_a_validator_test_may_be_skipped_only_without_the_validator(check, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    skipped = ("tests.io.test_mesh_glb", "test_it_is_valid", skip_of(outside.validate))
    assert check(*CONTRACT, skipped) == 0
    assert check(*CONTRACT, skipped, needs=["--need=gltf-validator"]) == 1


def test_a_test_with_three_js_may_be_skipped_only_without_it(check, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    skipped = ("tests.rigs.test_forward", "test_three", skip_of(outside.play_in_three, "a.glb", []))
    assert check(*CONTRACT, skipped) == 0
    assert check(*CONTRACT, skipped, needs=["--need=three.js"]) == 1


def test_a_test_that_compiles_for_gpus_may_be_skipped_only_without_their_compiler(check, tmp_path, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path))
    skipped = ("tests.bench.test_compile", "test_a_kernel", skip_of(compilers.find_compilers))
    assert check(*CONTRACT, skipped) == 0
    assert check(*CONTRACT, skipped, needs=["--need=gpu-compiler"]) == 1
