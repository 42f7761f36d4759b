"""Which file a model refers to, and what is said of one that it cannot have."""

import unicodedata

import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.io.gltf.uris import find_file


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    for name in (
        "skin.png",
        "textures/skin.png",
        "a b.png",
        "50%25.png",
        "50%.png",
        "Größe.png",
        "tex/Arm.PNG",
        "a:b.png",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "secret.png").write_text("secret")
    return folder / "a.gltf"


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("skin.png", "skin.png"),
        ("./textures/skin.png", "textures/skin.png"),
        ("textures\\skin.png", "textures/skin.png"),
        (".\\textures%5Cskin.png", "textures/skin.png"),
        ("a%20b.png", "a b.png"),
        ("a b.png", "a b.png"),
        ("50%25.png", "50%.png"),  # what it says, before what it spells
        ("50%.png", "50%.png"),
        (unicodedata.normalize("NFD", "Größe.png"), "Größe.png"),
        ("Gr%C3%B6%C3%9Fe.png", "Größe.png"),
        ("Textures/SKIN.png", "textures/skin.png"),
        ("TEX\\arm.png", "tex/Arm.PNG"),
        ("textures/../skin.png", "skin.png"),
        ("a:b.png", "a:b.png"),
    ],
)
def test_files_are_found_as_every_system_names_them(model, uri, found):
    assert find_file(model, uri).read_text() == found


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("absent.png", "which does not exist beside it"),
        ("old\\skin.png", "which does not exist beside it; 'skin.png' lies there: it should refer to that"),
        (
            "C:\\Users\\me\\Skin.png",
            "a place on the computer that it was made on, expected a file of its own folder; 'skin",
        ),
        ("/home/me/body.png", "a place on the computer that it was made on, expected a file of its own folder"),
        ("\\\\server\\share\\body.png", "a place on the computer that it was made on"),
        ("file:///tmp/skin.png", "an address (file), expected a file of its own folder; 'skin.png' lies there"),
        ("https://example.org/body.png", "an address (https), expected a file of its own folder"),
        ("../secret.png", "which lies outside its own folder"),
        ("..\\secret.png", "which lies outside its own folder"),
        ("textures", "a folder, expected a file"),
        ("", "expected the name of a file of its own folder"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said(model, uri, says):
    with pytest.raises(UserError) as error:
        find_file(model, uri)
    assert str(error.value).startswith(f"{model}: refers to {uri!r}, ")
    assert says in str(error.value)


def test_links_that_lead_elsewhere_are_not_followed(model):
    (model.parent / "link.png").symlink_to("../secret.png")
    with pytest.raises(UserError, match="outside its own folder"):
        find_file(model, "link.png")
    with pytest.raises(UserError):
        find_file(model, "LINK.png")


def test_two_files_that_differ_in_case_are_named(model):
    (model.parent / "Skin.PNG").write_text("other")
    if len(list(model.parent.glob("[sS]kin.*"))) < 2:
        pytest.skip("this disk does not tell case apart")
    assert find_file(model, "skin.png").read_text() == "skin.png"
    with pytest.raises(UserError, match=r"of which there are Skin.PNG and skin.png, expected one"):
        find_file(model, "SKIN.png")
