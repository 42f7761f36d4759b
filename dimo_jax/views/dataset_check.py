"""What is wrong with a dataset, file by file, and what its cameras see: `--app=import_data --check=FOLDER`."""

from __future__ import annotations

from pathlib import Path

from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_folder
from dimo_jax.data.inspection import inspect_folder
from dimo_jax.data.world import place_cameras
from dimo_jax.geometry.world import World
from dimo_jax.views.camera_drawings import draw_contact_sheet, draw_rig


def check_dataset(folder: str, *, out: str = "") -> None:
    """Reads all of a dataset, prints what it found, and draws its cameras and the first frame of each view.

    Args:
      folder: a dataset, in any of the layouts that can be trained on or imported (glTF files aside).
      out: folder for `cameras.png` and `contact_sheet.png`; default: `folder`_check, beside it.

    Raises:
      UserError: the data cannot be used as it is; the problems have been printed, and the pictures are written.
    """
    root = Path(folder)
    target = Path(out) if out else root.resolve().with_name(f"{root.resolve().name}_check")
    check_folder(target, "out")
    findings = inspect_folder(root)
    print(
        f"{root}: {len(findings.names)} motions, {len(findings.view_names)} views "
        f"({findings.view_splits.count('test')} held out), {findings.num_files} files of pictures"
    )
    if findings.stand:
        print(findings.stand)
    for line in findings.problems:
        print(f"problem: {line}")
    for line in findings.notes:
        print(f"note: {line}")
    shown = draw_contact_sheet(findings.first_frames, findings.names, findings.view_names, target / "contact_sheet.png")
    if shown != (len(findings.names), len(findings.view_names)):
        print(f"the contact sheet shows {shown[0]} motions and {shown[1]} views, evenly chosen")
    back = (findings.world or World()).upright().inverse()  # the source's units and place, but +Y up, as it is drawn
    cameras = place_cameras(findings.cameras, back)
    middle = back.apply(findings.focus)
    draw_rig(cameras, findings.view_names, findings.view_splits, target / "cameras.png", middle=middle)
    print(f"{target / 'contact_sheet.png'}\n{target / 'cameras.png'}")
    if findings.problems:
        count = len(findings.problems)
        raise UserError(
            f"{root}: found {count} problem{'s' if count > 1 else ''}, expected none (first: {findings.problems[0]})"
        )
    print("no problems found")
