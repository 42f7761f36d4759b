import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io.video import write_video
from dimo_jax.views import report as module
from dimo_jax.views.report import Card, Figure, Section, Table, Video, write_report

VOID = {"meta", "img", "br", "link", "input"}
EVIL = "<script>alert('1')</script>\" onload=\"x & läuft 跳"


class Page(HTMLParser):
    """Elements with their attributes, the visible text, and a check that every element is closed."""

    def __init__(self, content: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(content)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def video(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    return write_video(frames, tmp_path / "a.mp4", frame_rate=5)


def write_full(tmp_path, video, *, text: str) -> tuple[str, np.ndarray]:
    image = np.random.default_rng(1).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    sections = [
        Section(text, [Figure(image, text, wide=True), Video(video, text)], text=text),
        Section(text, [Table([text, "psnr"], [[text, 28.41234], ["static", None], ["n", 12345.6]], text)]),
    ]
    written = write_report(
        tmp_path / "näme" / "report.html",
        sections,
        title=text,
        preset=text,
        date=text,
        cards=[Card(text, text, text)],
        config={text: {"fn": text}},
        versions={"jax": text},
        facts={text: text},
    )
    content = written.path.read_text(encoding="utf-8")
    assert written.num_bytes == len(content.encode())
    assert written.warning is None
    return content, image


def test_page_parses_and_shows_everything(tmp_path, video):
    content, image = write_full(tmp_path, video, text="puppet")
    page = Page(content)
    shown = Image.open(io.BytesIO(base64.b64decode(page.find("img")[0]["src"].removeprefix("data:image/png;base64,"))))
    np.testing.assert_array_equal(np.asarray(shown), image)
    (clip,) = page.find("video")
    assert base64.b64decode(clip["src"].removeprefix("data:video/mp4;base64,")) == video.read_bytes()
    assert {"controls", "loop", "muted", "autoplay"} <= clip.keys()
    poster = base64.b64decode(clip["poster"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(poster)).size == (16, 16)
    for text in ("28.41", "–", "12,346", "puppet", "Configuration", "Versions"):
        assert text in page.texts
    anchors = {link["href"] for link in page.find("a")}
    assert anchors == {"#" + section["id"] for section in page.find("section")} == {"#part-0", "#part-1"}


def test_page_refers_to_nothing_outside(tmp_path, video):
    content, _ = write_full(tmp_path, video, text="puppet")
    markup = re.sub(r"base64,[A-Za-z0-9+/=]+", "", content)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<link|<script|<iframe", markup)
    for _, attributes in Page(content).elements:
        for name in ("src", "href", "poster", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_all_text_is_escaped(tmp_path, video):
    content, _ = write_full(tmp_path, video, text=EVIL)
    page = Page(content)
    assert not page.find("script")
    assert not any("onload" in attributes for _, attributes in page.elements)
    assert "<script" not in content
    # The page's title, its heading and two section headings among others; config is JSON, which escapes the quote.
    assert sum(text == EVIL for text in page.texts) >= 12
    assert page.find("img")[0]["alt"] == EVIL
    assert page.find("video")[0]["title"] == EVIL


def test_names_that_are_not_utf8(tmp_path):
    written = write_report(tmp_path / "a.html", [], title="b\udcfcro")
    assert "b\\udcfcro" in written.path.read_text(encoding="utf-8")


def test_images_from_files_keep_their_bytes(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.JPG", format="JPEG")
    written = write_report(tmp_path / "a.html", [Section("a", [Figure(tmp_path / "a.JPG")])], title="a")
    source = Page(written.path.read_text()).find("img")[0]["src"]
    assert base64.b64decode(source.removeprefix("data:image/jpeg;base64,")) == (tmp_path / "a.JPG").read_bytes()


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (Figure("gone.png"), r"gone\.png"),
        (Figure("a.svg"), r"\.svg"),
        (Video("a.avi"), r"\.avi"),
        (Video("a.png"), "png"),
    ],
)
def test_bad_media_are_named_and_nothing_is_written(tmp_path, item, found):
    with pytest.raises(UserError, match=found):
        write_report(tmp_path / "a.html", [Section("a", [item])], title="a")
    assert not list(tmp_path.iterdir())


def test_rows_must_fit_the_columns(tmp_path):
    with pytest.raises(ValueError, match="2 cells under 1 columns"):
        write_report(tmp_path / "a.html", [Section("a", [Table(["a"], [[1, 2]])])], title="a")


def test_large_pages_come_with_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_LARGE_MIB", 0.001)
    written = write_report(tmp_path / "a.html", [], title="a")
    assert "a.html" in written.warning
    assert "MiB" in written.warning


def test_minimal_page_has_a_date(tmp_path):
    page = Page(write_report(tmp_path / "a.html", [], title="a").path.read_text())
    assert any(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d", text) for text in page.texts)
    assert not page.find("nav")


def test_links_stand_under_the_title(tmp_path):
    links = {"Play <it>": 'a"b.html'}
    text = write_report(tmp_path / "a.html", [], title="a", links=links).path.read_text()
    assert '<a href="a&quot;b.html">Play &lt;it&gt;</a>' in text
    assert "class=links" not in write_report(tmp_path / "a.html", [], title="a").path.read_text()


def test_a_video_that_is_none_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"a\.mp4: cannot be read as a video"):
        write_report(tmp_path / "a.html", [Section("a", [Video(tmp_path / "a.mp4")])], title="a")
    assert not (tmp_path / "a.html").exists()


def test_pictures_can_be_enlarged_without_scripts(tmp_path, video):
    content, _ = write_full(tmp_path, video, text="puppet")
    page = Page(content)
    (box,) = page.find("input")
    assert box["type"] == "checkbox"
    order = [tag for tag, _ in page.elements if tag in ("label", "input", "span", "img")]
    at = order.index("label")
    assert order[at : at + 4] == ["label", "input", "span", "img"]  # the style's `input:checked + span img`
    style = content.split("<style>")[1].split("</style>")[0]
    (enlarged,) = re.findall(r"\.zoom input:checked \+ span \{([^}]*)\}", style.split("@media print")[0])
    assert "position: fixed" in enlarged
    assert len(page.find("img")) == content.count("data:image/png") == 1  # not in the page twice


def test_undefined_cells_are_dashes(tmp_path):
    table = Table(["a", "b", "c"], [[float("nan"), np.float32(np.inf), None]])
    page = Page(write_report(tmp_path / "a.html", [Section("a", [table])], title="a").path.read_text())
    assert page.texts.count("–") == 3
