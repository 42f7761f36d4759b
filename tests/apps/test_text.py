"""`--app=text`: its sentences, the kept projector, its evaluation, and what it refuses."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.apps import text
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.data.puppet.catalog import MOTIONS
from dimo_jax.data.puppet.sentences import MORE, TEST
from dimo_jax.runs import captions
from dimo_jax.systems.dimo import caption_checks
from dimo_jax.systems.dimo.projector import build_projector, stack_sentences
from dimo_jax.systems.dimo.sentences import DEFAULTS, read_sentences
from dimo_jax.training.config_file import save_config

FACTS = dict(
    names=["walk", "wave", "jump"],
    captions=["walks", "waves", "jumps"],
    splits=["train", "train", "test"],
    paraphrases=[["walks", "a walk"], ["waves", "a wave"], ["jumps"]],
    test_paraphrases=[["it walks"], ["hello"], ["hop"]],
)
OPTIONS = DEFAULTS | dict(fit=dict(fn="dimo_jax.systems.dimo.fit_projector:fit_projector", num_steps=60, num_members=2))
CODES = np.array([[1.0, 0.0], [-1.0, 2.0]], np.float32)


class Letters:
    """An encoder that counts letters."""

    pooling, sha256 = "mean", "letters"

    def embed(self, sentences):
        return np.array([[each.count(c) for c in "walkevsjum "] for each in sentences], np.float32)


def test_only_trained_motions_and_nonempty_sentences_count():
    sentences = read_sentences(FACTS)
    assert sentences.motions == (0, 1)
    assert sentences.train == (("walks", "a walk"), ("waves", "a wave"))
    assert sentences.test == (("it walks",), ("hello",))
    old = {key: FACTS[key] for key in ("names", "captions")}
    assert read_sentences(old).train == (("walks",), ("waves",), ("jumps",))
    with pytest.raises(UserError, match="motion 'wave' has no caption"):
        read_sentences(old | dict(captions=["a", " ", "c"]))


def test_the_projector_is_kept_until_something_changes(tmp_path, monkeypatch):
    sentences = read_sentences(FACTS)
    first = captions.load_speaker(OPTIONS, Letters(), sentences, CODES, tmp_path)
    answer = first.codes(Letters().embed(["walks", "waves"]))
    np.testing.assert_array_equal(np.argmin(np.linalg.norm(answer[:, None] - CODES, axis=-1), axis=1), [0, 1])
    fits = []
    whole = captions.fit
    monkeypatch.setattr(captions, "fit", lambda *a: fits.append(1) or whole(*a))
    again = captions.load_speaker(OPTIONS, Letters(), sentences, CODES, tmp_path)
    assert not fits
    np.testing.assert_array_equal(again.codes(Letters().embed(["walks", "waves"])), answer)
    captions.load_speaker(OPTIONS, Letters(), sentences, CODES + 1, tmp_path)
    assert len(fits) == 1
    (tmp_path / captions.FILE).write_bytes(b"PK damaged")
    captions.load_speaker(OPTIONS, Letters(), sentences, CODES, tmp_path)
    assert len(fits) == 2
    assert [path.name for path in tmp_path.iterdir()] == [captions.FILE]


def test_a_projector_trained_with_the_latents_is_taken_as_it_is(tmp_path, monkeypatch):
    sentences = read_sentences(FACTS)
    flat = [sentence for each in sentences.train for sentence in each]
    module = build_projector(OPTIONS["projector"], num_features=2)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 11)))
    monkeypatch.setattr(captions, "fit", None)  # nothing may be trained
    speaker = captions.load_speaker(OPTIONS, Letters(), sentences, CODES, tmp_path, trained=variables)
    # What training saw of a sentence is what a prompt makes of it.
    stacked = stack_sentences([Letters().embed(each) for each in sentences.train], (0, 1), num_motions=3)
    seen = module.apply(variables, stacked.inputs[:2].reshape(4, -1))
    np.testing.assert_allclose(speaker.codes(Letters().embed(flat)), seen, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(stacked.weights, [[0.5, 0.5], [0.5, 0.5], [0, 0]])


@pytest.mark.parametrize("joint", [False, True])
def test_every_app_asks_the_projector_that_the_run_has(joint, tmp_path, monkeypatch):
    """`text`, `export` and `view` all come here: a run trained with text.joint keeps its own projector."""
    variables = build_projector(OPTIONS["projector"], num_features=2).init(jax.random.key(0), jnp.zeros((1, 11)))
    params = SimpleNamespace(latents=SimpleNamespace(mu=np.concatenate([CODES, CODES[:1]])))
    if joint:
        params.projector = variables
    model = SimpleNamespace(facts=FACTS, player=SimpleNamespace(params=params))
    fits = []
    whole = captions.fit
    monkeypatch.setattr(captions, "fit", lambda *a: fits.append(1) or whole(*a))
    speaker, sentences = captions.speak_for(model, tmp_path, OPTIONS, Letters())
    assert len(fits) == (not joint)
    assert sentences.motions == (0, 1)
    own = jax.tree.map(lambda mine, x: mine.shape == (1, *x.shape), speaker.projector.members, variables)
    assert joint == all(jax.tree.leaves(own))


def test_nearest_sentences_come_one_a_motion_by_cosine(tmp_path):
    speaker = captions.load_speaker(OPTIONS, Letters(), read_sentences(FACTS), CODES, tmp_path)
    (first, motion, sentence), (second, other, _) = speaker.nearest(Letters().embed(["a wave"])[0], num=3)
    assert (motion, sentence, other) == (1, "a wave", 0)
    assert first == pytest.approx(1.0)
    assert second < first


def ask(tmp_path, prompt, caplog):
    """What is logged of a prompt to a run whose dataset lies in a folder."""
    caplog.clear()
    config = {"data": {"path": str(tmp_path / "data")}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = SimpleNamespace(facts=FACTS, player=SimpleNamespace(params=SimpleNamespace(latents=SimpleNamespace(
        mu=np.concatenate([CODES, CODES[:1]])))))  # fmt: skip
    speaker, _ = captions.speak_for(model, tmp_path, OPTIONS, Letters())
    speaker.ask(prompt)
    return speaker, [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_a_sentence_unlike_all_captions_is_doubted(tmp_path, caplog):
    _, said = ask(tmp_path, "jjjj", caplog)
    assert said[0].startswith("nothing that training said of its 2 motions is like this sentence: the nearest, 'walks'")
    assert "has a similarity of 0.00, expected 0.57 or more" in said[0]
    assert said[0].endswith(f"(the captions are in {tmp_path / 'data' / 'captions.txt'})")
    assert ask(tmp_path, "a walk, a walk", caplog)[1] == []


def test_captions_that_are_names_of_clips_are_doubted(tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(FACTS, "names", ["Armature_Walk_A_2", "wave", "jump"])
    monkeypatch.setitem(FACTS, "paraphrases", [["walk a"], ["waves", "a wave"], ["jump"]])
    _, said = ask(tmp_path, "walk", caplog)
    assert said == [
        "the captions of 1 of 2 motions are mere names of clips, such as 'walk a', of which sentences are hard to "
        f"learn: say in {tmp_path / 'data' / 'captions.txt'} what they show"
    ]


def test_edited_captions_count_at_the_next_prompt(tmp_path, caplog):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/captions.txt").write_text("walk: It walks slowly.\n")
    speaker, _ = ask(tmp_path, "walk", caplog)
    assert speaker.sentences == ("It walks slowly.", "waves", "a wave")


def test_an_encoder_to_which_all_is_alike_is_not_taken_at_its_word():
    rng = np.random.default_rng(0)
    alike = np.ones(64) + 0.3 * rng.normal(size=(12, 64))
    least = caption_checks.find_least_likeness(alike, np.repeat(np.arange(4), 3))
    assert 0.85 < least < 0.97
    apart = rng.normal(size=(12, 64))
    assert caption_checks.find_least_likeness(apart, np.repeat(np.arange(4), 3)) == caption_checks.LEAST_LIKE
    assert caption_checks.find_least_likeness(apart[:3], np.zeros(3, int)) == caption_checks.LEAST_LIKE


def test_leave_one_out_needs_two_sentences():
    sentences = read_sentences(FACTS)
    embeddings = [Letters().embed(each) for each in sentences.train]
    answers = captions.leave_one_out(OPTIONS, sentences, embeddings, CODES)
    assert [(m, s) for m, s, _ in answers] == [(0, "a walk"), (1, "a wave")]
    single = read_sentences({key: FACTS[key] for key in ("names", "captions")})
    with pytest.raises(UserError, match="motion 'walk' has one sentence, expected at least 2"):
        captions.leave_one_out(OPTIONS, single, embeddings, CODES)


def test_no_sentence_is_left_out_of_codes_that_were_trained_with_it(tmp_path):
    """With `text.joint` the codes themselves know every training sentence; refused before anything is loaded."""
    config = get_config("smoke")
    config.text.joint = True
    save_config(config, tmp_path)
    with pytest.raises(
        UserError, match=r"leave_one_out: the codes of --workdir=.*expected --evaluate_captions=held_out"
    ):
        text.run(workdir=str(tmp_path), evaluate_captions="leave_one_out")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    config.text.joint = False
    captions.check_codes_know_no_sentence(config, tmp_path)
    del config.text
    captions.check_codes_know_no_sentence(config, tmp_path)


def test_evaluation_counts_the_nearest_trajectories(tmp_path, monkeypatch, capsys):
    # A motion moves its 2 key points straight away from 0, as fast as its code says.
    def find(model, codes, *, name):
        return np.stack([np.full((3, 2, 3), code[0]) for code in codes])

    monkeypatch.setattr(text, "_find_trajectories", find)
    answers = [(0, "a", np.array([0.8, 0])), (1, "b", np.array([-0.4, 0])), (1, "c", np.array([0.3, 0]))]
    text._evaluate(
        SimpleNamespace(),
        read_sentences(FACTS),
        CODES,
        answers,
        tmp_path / "held_out_2.json",
        evaluation="held_out",
    )
    written = json.loads((tmp_path / "held_out_2.json").read_text())
    assert written["share_right"] == pytest.approx(2 / 3)
    assert [row["nearest"] for row in written["sentences"]] == ["walk", "wave", "walk"]
    assert written["sentences"][0]["distance"] == pytest.approx(0.2 * np.sqrt(3), abs=1e-4)
    assert "wave: 'c' became walk" in capsys.readouterr().out


def test_distances_are_means_over_time_and_points():
    a, b = np.zeros((1, 4, 2, 3)), np.zeros((2, 4, 2, 3))
    b[1, 0, 0] = [0, 3, 4]
    np.testing.assert_allclose(text.trajectory_distances(a, b), [[0, 5 / 8]])


@pytest.mark.parametrize(("prompt", "name"), [
    ("Waves the left hand.", "waves_the_left_hand"), ("../../etc", "etc"), ("¿?", "prompt"), ("x" * 200, "x" * 60),
    ("winkt mit der Hand, größer", "winkt_mit_der_hand_größer"),
])  # fmt: skip
def test_files_are_named_after_the_prompt(prompt, name):
    assert text.file_name(prompt) == name


@pytest.mark.parametrize(("flags", "says"), [
    (dict(), "--prompt: found"),
    (dict(prompt="  "), "--prompt: found"),
    (dict(prompt="walk", evaluate_captions="held_out"), "found both"),
    (dict(evaluate_captions="all"), "--evaluate_captions: found 'all', expected one of held_out, leave_one_out"),
    (dict(prompt="walk", size=-1), "--size: found -1"),
    (dict(prompt="walk"), "no such folder"),
])  # fmt: skip
def test_bad_flags_are_refused_before_anything_is_written(tmp_path, flags, says):
    with pytest.raises(UserError, match=says):
        text.run(workdir=str(tmp_path / "none"), **flags)
    assert not list(tmp_path.iterdir())


def test_every_puppet_motion_has_distinct_sentences_for_training_and_for_testing():
    names = [motion.name for motion in MOTIONS]
    assert set(names) == set(MORE) == set(TEST)
    plain = [s.lower().strip(". ") for m in MOTIONS for s in (*m.sentences, *MORE[m.name], *TEST[m.name])]
    assert len(set(plain)) == len(plain) == 8 * len(MOTIONS)
    assert jnp.all(jnp.array([len(s) for s in plain]) < 120)
