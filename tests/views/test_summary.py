"""The report's figures: of every motion, the worst first, with a word on what is undefined."""

from dimo_jax.views.summary import _make_cards, _make_tables

ROW = dict(psnr=30.0, psnr_undefined=0, psnr_foreground=20.0, psnr_foreground_undefined=0)


def make_summary(**changes):
    views = dict(**ROW, ssim=0.9, lpips_vgg=0.1, num_images=8, num_lpips_images=4, lpips_images=[], worst_motion="run")
    views["motions"] = dict(walk=ROW, hide=ROW | dict(psnr_foreground=None), run=ROW | dict(psnr_foreground=9.5))
    frames = views | dict(motions={name: ROW for name in views["motions"]})
    known = dict(held_out_views=views | changes, held_out_frames=frames, static_baseline=views)
    return known | dict(surface_distance=None, peak_memory_gib=1.0, seconds=dict(total=60.0))


def test_motions_are_listed_with_the_worst_first():
    _, motions, _ = _make_tables(make_summary())
    assert motions.rows == [["run", 9.5, 20.0], ["walk", 20.0, 20.0], ["hide", None, 20.0]]
    cards = {card.label: card for card in _make_cards(make_summary())}
    assert cards["Worst motion"].value == "9.50 dB"
    assert cards["Worst motion"].note.startswith("run,")


def test_undefined_figures_are_named_and_break_nothing():
    summary = make_summary(psnr=None, psnr_foreground=None, psnr_undefined=8, worst_motion=None)
    assert _make_tables(summary)[0].caption.endswith("in no mean: PSNR (dB) of 8 images of held-out views")
    cards = {card.label: card.value for card in _make_cards(summary)}
    assert cards["PSNR"] == cards["PSNR foreground"] == "–"
    assert "Worst motion" not in cards
    assert "Above the static model" not in cards
    assert "Undefined" not in _make_tables(make_summary())[0].caption
