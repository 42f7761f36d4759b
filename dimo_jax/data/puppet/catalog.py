"""The embedded character's named, captioned motions: families with their variants and sentences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dimo_jax.data.puppet import motions as basic
from dimo_jax.data.puppet import moves
from dimo_jax.data.puppet.motions import BOTH

LEFT, RIGHT = ("left",), ("right",)


class Motion(NamedTuple):
    """One motion: `curves(u)` maps [T] in 0..1 to channels of `body.pose`; the first sentence is the caption."""

    name: str
    family: str
    sentences: tuple[str, ...]
    curves: Callable[[np.ndarray], dict[str, np.ndarray]]


class _Variant(NamedTuple):
    name: str
    words: str  # replaces {} in the family's sentences
    options: dict[str, Any]


_Family = tuple[Callable[..., Any], tuple[str, ...], tuple[_Variant, ...]]


def _v(name: str, words: str, **options: Any) -> _Variant:
    return _Variant(name, words, options)


# Families stand in the order in which a small subset takes them: large, distinct motions first.
_FAMILIES: dict[str, _Family] = {
    "jumping_jack": (basic.jumping_jack, (
        "The character does {}.", "Someone is doing {} on the spot.", "A workout with {}.",
        "Arms and legs open and close in {}.",
    ), (_v("jumping_jacks", "jumping jacks", cycles=2), _v("slow_jumping_jack", "one slow jumping jack", cycles=1))),
    "walk": (basic.step, (
        "The character {} in place.", "A figure {} on the spot.", "Someone {} without moving forward.",
        "It {} as if on a treadmill.",
    ), (_v("walk", "walks", cycles=2, thigh=42, back=24, knee=40, arms=36),
        _v("walk_slowly", "walks slowly", cycles=1, thigh=36, back=22, knee=36, arms=26),
        _v("sneak", "sneaks with bent knees", cycles=1.5, thigh=45, knee=45, arms=15, elbow=70, lean=22, crouch=28))),
    "bow": (basic.bow, (
        "The character bows {}.", "A bow, made {}.", "Bending {} at the waist to bow.",
        "Someone bows {} to the audience.",
    ), (_v("bow_deeply", "deeply", depth=88), _v("bow", "politely", depth=48))),
    "wave": (basic.wave, (
        "The character waves {}.", "Someone says hello by waving {}.", "A greeting: it waves {}.",
        "It lifts and waves {}.",
    ), (_v("wave_left", "its left hand", sides=LEFT), _v("wave_right", "its right hand", sides=RIGHT),
        _v("wave_both", "both hands", sides=BOTH, cycles=2),
        _v("wave_left_slowly", "its left hand slowly", sides=LEFT, cycles=1.5))),
    "kick": (basic.kick, (
        "The character kicks {}.", "A kick {}.", "Someone swings a leg to kick {}.", "It throws a kick {}.",
    ), (_v("kick_right", "forward with the right leg", side="right", height=92),
        _v("kick_left", "forward with the left leg", side="left", height=92),
        _v("side_kick_left", "to the side with the left leg", side="left", height=72, sideways=True),
        _v("side_kick_right", "to the side with the right leg", side="right", height=72, sideways=True),
        _v("low_kick_right", "low with the right foot", side="right", height=48))),
    "squat": (basic.squat, (
        "The character {}.", "Someone {} with the back straight.", "Leg training: the figure {}.",
        "It {} and comes up again.",
    ), (_v("squat", "does a deep squat", depth=62, cycles=1, arms=82),
        _v("squats", "does two quick squats", depth=46, cycles=2, arms=70),
        _v("knee_bends", "bends its knees three times with hanging arms", depth=30, cycles=3, arms=0))),
    "turn": (basic.turn, (
        "The character turns {}.", "It spins {} on the spot.", "Someone is turning {}.", "A turn {} with small steps.",
    ), (_v("turn_around", "all the way around to its left", degrees=360),
        _v("turn_back_right", "halfway round to its right, ending with its back to the front", degrees=-180),
        _v("turn_quarter_left", "a quarter to its left", degrees=90))),
    "raise": (basic.raise_arms, (
        "The character raises {}.", "It lifts {}, then lowers again.", "Raising {}.", "Someone slowly lifts {}.",
    ), (_v("raise_both_arms", "both arms in front and overhead", sides=BOTH, forward=168),
        _v("t_pose", "both arms out to the sides", sides=BOTH, outward=76),
        _v("raise_left_arm", "the left arm straight up", sides=LEFT, forward=168),
        _v("raise_right_arm", "the right arm straight up", sides=RIGHT, forward=168),
        _v("raise_left_arm_sideways", "the left arm out to the side", sides=LEFT, outward=78),
        _v("raise_right_arm_sideways", "the right arm out to the side", sides=RIGHT, outward=78))),
    "march": (basic.step, (
        "The character {}.", "Someone {} on the spot.", "A soldier {} in place.", "It {} with swinging arms.",
    ), (_v("march", "marches with high knees", cycles=2, thigh=88, knee=92, arms=48, elbow=18),
        _v("stomp", "stomps once with each foot", cycles=1, thigh=72, knee=78, arms=20))),
    "sit": (basic.sit, (
        "The character sits down {}.", "It takes a seat {}.", "Someone sits {} and stays there.", "Sitting down {}.",
    ), (_v("sit_on_floor", "on the floor with its legs forward", floor=True),
        _v("sit_on_chair", "on an invisible chair", floor=False))),
    "punch": (basic.punch, (
        "The character {}.", "A boxer {}.", "Someone fights: it {}.", "From its guard it {}.",
    ), (_v("punches", "punches left and right", sides=("left", "right")),
        _v("punch_right", "punches once with the right fist", sides=RIGHT),
        _v("punch_left", "punches once with the left fist", sides=LEFT),
        _v("uppercut_right", "throws an uppercut with the right fist", sides=RIGHT, upward=True))),
    "lean": (basic.lean, (
        "The character bends sideways to its {}.", "A side stretch to the {}.",
        "Leaning over to the {} with one arm overhead.", "Someone stretches its flank, leaning {}.",
    ), (_v("lean_left", "left", side="left"), _v("lean_right", "right", side="right"))),
    "star_jump": (basic.jump, (
        "The character jumps {}.", "A jump {}.", "It crouches and leaps {}.", "Someone springs off the floor {}.",
    ), (_v("star_jump", "with arms and legs spread like a star", height=0.13, spread=75),
        _v("jump", "straight up", height=0.14, arms=60),
        _v("tuck_jump", "with its knees pulled up", height=0.16, tuck=88, arms=55),
        _v("small_jump", "just a little", height=0.07))),
    "fall": (moves.fall, (
        "The character falls {}.", "It tips over {} and lies still.", "Knocked out, it drops {}.", "Someone falls {}.",
    ), (_v("fall_back", "flat on its back", forward=False), _v("fall_forward", "flat on its face", forward=True))),
    "twist": (basic.twist, (
        "The character twists its upper body {}.", "Arms out, it rotates the chest {}.", "A torso twist, {}.",
        "Someone warms up the waist, turning it {}.",
    ), (_v("twist", "left and right", cycles=1), _v("twist_fast", "quickly from side to side", cycles=2))),
    "lunge": (moves.lunge, (
        "The character lunges with the {} leg forward.", "A deep lunge, {} foot in front.",
        "Someone steps far forward on the {} leg with its hands on the hips.", "It drops into a lunge on the {} side.",
    ), (_v("lunge_left", "left", side="left"), _v("lunge_right", "right", side="right"))),
    "cheer": (basic.cheer, (
        "The character cheers {}.", "It celebrates {}.", "Someone rejoices {}.", "A fan cheers {}.",
    ), (_v("cheer", "with both fists in the air", cycles=2, bounce=0.05),
        _v("cheer_right", "with the right fist in the air", cycles=3, bounce=0.02, sides=RIGHT))),
    "run": (basic.step, (
        "The character {}.", "A figure {} on the spot.", "Someone {} without getting anywhere.",
        "It {} with tireless legs.",
    ), (_v("run", "runs in place", cycles=3, thigh=66, back=30, knee=88, arms=52, elbow=80, lean=12, lift=0.04),
        _v("jog", "jogs in place", cycles=2, thigh=45, back=22, knee=70, arms=32, elbow=74, lean=6, lift=0.03),
        _v("zombie_walk", "staggers like a zombie with its arms forward", cycles=1.5, thigh=30, knee=24, arms=6,
           elbow=-8, reach=82, lean=6))),
    "arm_circles": (moves.arm_circles, (
        "The character circles {}.", "Big circles drawn by {}.", "It swings {} round and round.",
        "Someone loosens the shoulders by turning {}.",
    ), (_v("arm_circles_back", "both arms backward", sides=BOTH, turns=1),
        _v("arm_circles_forward", "both arms forward", sides=BOTH, turns=-1),
        _v("arm_circle_left", "the left arm like a windmill", sides=LEFT, turns=1),
        _v("arm_circle_right", "the right arm like a windmill", sides=RIGHT, turns=-1))),
    "crawl": (moves.crawl, (
        "The character {}.", "It goes down and {}.", "Someone drops to the floor and {}.", "Down low, the figure {}.",
    ), (_v("crawl", "crawls on hands and knees", cycles=1.5),)),
    "sway": (moves.sway, (
        "The character dances, {}.", "A dance: {}.", "It moves to the music, {}.", "Someone on the dance floor, {}.",
    ), (_v("dance_sway", "swaying its hips", cycles=2),
        _v("dance_sway_slow", "swaying slowly from side to side", cycles=1))),
    "kneel": (basic.kneel, (
        "The character kneels down on {}.", "It drops to {}.", "Kneeling on {}.", "Someone goes down on {} and stays.",
    ), (_v("kneel_right", "its right knee", knees=RIGHT), _v("kneel_both", "both knees", knees=BOTH),
        _v("kneel_left", "its left knee", knees=LEFT))),
    "clap": (basic.clap, (
        "The character claps {}.", "Applause: it claps {}.", "Hands clapping {}.", "Someone applauds, clapping {}.",
    ), (_v("clap", "its hands in front of the chest", cycles=3),
        _v("clap_overhead", "its hands above the head", cycles=2, overhead=True))),
    "balance": (moves.balance, (
        "The character balances {}.", "It holds a pose {}.", "A balance {}.", "Someone practises standing {}.",
    ), (_v("aeroplane", "on one leg like an aeroplane", side="left", tree=False),
        _v("tree_pose", "on the left leg in a tree pose", side="left", tree=True))),
    "point": (basic.gesture, (
        "The character points {}.", "It points its finger {}.", "Pointing {}.", "Someone shows the way, pointing {}.",
    ), (_v("point_right", "to its right with the right hand", sides=RIGHT, abduct=78, elbow=-12, look=-55),
        _v("point_forward", "forward with the left hand", sides=LEFT, flex=88, elbow=-12),
        _v("point_left", "to its left with the left hand", sides=LEFT, abduct=78, elbow=-12, look=55),
        _v("point_up", "at the sky with the right hand", sides=RIGHT, flex=150, elbow=-12, nod=-25))),
    "hop": (moves.hop, (
        "The character hops on its {} foot.", "Hopping on the {} leg.", "It bounces on the {} foot alone.",
        "Someone plays hopscotch on the {} foot.",
    ), (_v("hop_left", "left", side="left", cycles=2), _v("hop_right", "right", side="right", cycles=2))),
    "muscles": (moves.flex_muscles, (
        "The character {}.", "A strong figure {}.", "Someone proudly {}.", "On the stage it {}.",
    ), (_v("flex_muscles", "shows off its biceps", cycles=2),)),
    "cartwheel": (moves.cartwheel, (
        "The character does a cartwheel to its {}.", "A cartwheel {}wards.", "It wheels over its hands to the {}.",
        "An acrobat turns a cartwheel to the {}.",
    ), (_v("cartwheel_left", "left", side="left"), _v("cartwheel_right", "right", side="right"))),
    "toe_touch": (moves.side_stretch_legs, (
        "The character {}.", "Legs wide, it {}.", "A warm-up in which it {}.", "Someone bends down and {}.",
    ), (_v("toe_touch", "touches each foot with the opposite hand", cycles=1),)),
    "disco": (moves.disco, (
        "The character dances disco with its {} arm.", "A disco move, {} hand up and down.",
        "It points up and down to the beat with the {} hand.", "Saturday night: the {} arm shoots up.",
    ), (_v("disco_right", "right", side="right", cycles=2), _v("disco_left", "left", side="left", cycles=2))),
    "flap": (moves.flap, (
        "The character {}.", "Like a bird it {}.", "Pretending to fly, it {}.", "Someone {} to take off.",
    ), (_v("flap", "flaps its arms like wings", cycles=2), _v("flap_fast", "flaps its arms fast", cycles=3))),
    "salute": (basic.gesture, (
        "The character salutes with the {} hand.", "A {}-handed military salute.",
        "It raises the {} hand to its forehead to salute.", "Someone greets an officer with the {} hand.",
    ), (_v("salute_right", "right", sides=RIGHT, abduct=66, elbow_abduct=118, flex=24),
        _v("salute_left", "left", sides=LEFT, abduct=66, elbow_abduct=118, flex=24))),
    "throw": (moves.throw, (
        "The character throws a ball with its {} arm.", "A {}-handed throw.",
        "It winds up and hurls something with the {} hand.", "A pitcher throws with the {} arm.",
    ), (_v("throw_right", "right", side="right"), _v("throw_left", "left", side="left"))),
    "robot": (moves.robot, (
        "The character {}.", "Like a machine it {}.", "A dancer {}.", "Someone {} with stiff arms.",
    ), (_v("robot_dance", "dances like a robot", cycles=2),)),
    "step": (moves.step_aside, (
        "The character steps to its {}.", "A side step {}.", "It moves one wide step to the {}.",
        "Someone sidesteps {}.",
    ), (_v("step_left", "left", side="left"), _v("step_right", "right", side="right"))),
    "stretch": (basic.stretch, (
        "The character {}.", "Waking up, it {}.", "Someone {} and yawns.", "On tiptoe it {}.",
    ), (_v("stretch", "stretches both arms up high",),)),
    "push": (moves.push, (
        "The character {}.", "With all its strength it {}.", "Someone {} hard.", "Legs braced, it {}.",
    ), (_v("push", "pushes forward with both hands", pull=False),
        _v("pull", "pulls a rope towards itself", pull=True))),
    "hips": (basic.gesture, (
        "The character {}.", "It stands and {}.", "Someone {} for a while.", "Waiting, the figure {}.",
    ), (_v("hands_on_hips", "puts its hands on its hips", sides=BOTH, abduct=38, elbow_abduct=-94),
        _v("fold_arms", "folds its arms", sides=BOTH, flex=30, abduct=-6, elbow=78, elbow_abduct=-66))),
    "shake": (basic.head, (
        "The character {}.", "It {} without a word.", "As an answer it {}.", "Someone {}.",
    ), (_v("shake_head", "shakes its head", axis="twist", amplitude=58, cycles=2),
        _v("nod", "nods its head", axis="flex", amplitude=34, cycles=2),
        _v("look_around", "looks around to both sides", axis="twist", amplitude=58, cycles=1, spine=20),
        _v("tilt_head", "tilts its head from side to side", axis="abduct", amplitude=34, cycles=1, spine=5))),
    "duck": (moves.duck, (
        "The character {}.", "Danger: it {}.", "Something flies past and it {}.", "Someone {} to hide.",
    ), (_v("duck", "ducks and covers its head"),)),
    "collapse": (moves.collapse, (
        "The character sinks down onto its {} side.", "It collapses to the {}.", "Tired, it lies down on the {} side.",
        "Someone curls up on the {} side.",
    ), (_v("collapse_left", "left", side="left"),)),
    "twist_dance": (moves.twist_dance, (
        "The character {}.", "To the music it {}.", "A party guest {}.", "Someone {} on bent knees.",
    ), (_v("twist_dance", "dances the twist", cycles=2),)),
    "cancan": (moves.cancan, (
        "The character {}.", "On stage it {}.", "A dancer {}.", "Someone {} with the arms out.",
    ), (_v("cancan", "dances the cancan with high kicks", cycles=1.5),)),
    "shrug": (moves.shrug, (
        "The character {}.", "Not knowing, it {}.", "Someone {}.", "With palms up it {}.",
    ), (_v("shrug", "shrugs its shoulders", cycles=1),)),
    "drum": (moves.drum, (
        "The character {}.", "In the band it {}.", "Someone {}.", "With both arms it {}.",
    ), (_v("drum", "plays the drums", cycles=3),)),
    "push_up": (moves.push_up, (
        "The character {}.", "On the floor it {}.", "Someone {}.", "For exercise it {}.",
    ), (_v("push_up", "does a push-up", cycles=1),)),
    "bat": (moves.bat, (
        "The character swings a bat from its {}.", "A baseball swing from the {}.",
        "It strikes with both hands from the {}.", "A batter swings from the {} side.",
    ), (_v("bat_right", "right", side="right"), _v("bat_left", "left", side="left"))),
    "swim": (moves.swim, (
        "The character {}.", "Bent forward, it {}.", "Someone {} in the air.", "On dry land it {}.",
    ), (_v("swim", "swims the front crawl", turns=1),)),
    "drink": (basic.gesture, (
        "The character {}.", "It {} and puts it down again.", "Someone {}.", "Pausing, the figure {}.",
    ), (_v("drink", "drinks from a cup in its right hand", sides=RIGHT, flex=42, abduct=-4, elbow=104,
           elbow_abduct=-32, nod=-14),
        _v("phone", "holds a phone to its left ear", sides=LEFT, flex=24, abduct=28, elbow=118, elbow_abduct=10))),
}  # fmt: skip


def _catalog() -> tuple[Motion, ...]:
    """All motions, the first variant of every family before any second."""
    rounds: dict[int, list[Motion]] = {}
    for family, (function, sentences, variants) in _FAMILIES.items():
        for index, variant in enumerate(variants):
            words = tuple(sentence.format(variant.words) for sentence in sentences)
            curves = functools.partial(function, **variant.options)
            rounds.setdefault(index, []).append(Motion(variant.name, family, words, curves))
    return tuple(motion for index in sorted(rounds) for motion in rounds[index])


MOTIONS: tuple[Motion, ...] = _catalog()
