"""Results get a number where a file of their name is there."""

from dimo_jax.runtime.naming import free_number


def test_one_number_serves_all_files_of_a_call(tmp_path):
    files = [("walk", "_grid.mp4"), ("walk", ".json"), ("scores", ".json")]
    assert free_number(tmp_path / "new", files) == ""
    assert free_number(tmp_path, files) == ""
    (tmp_path / "walk.mp4").touch()  # of none of them
    assert free_number(tmp_path, files) == ""
    (tmp_path / "scores.json").touch()
    assert free_number(tmp_path, files) == "_2"
    (tmp_path / "walk_2_grid.mp4").mkdir()
    assert free_number(tmp_path, files) == "_3"
    assert free_number(tmp_path, files, overwrite=True) == ""
