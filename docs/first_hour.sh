#!/usr/bin/env bash
# A newcomer's hour, a command a step: bash <checkout>/docs/first_hour.sh [folder to work in, ./first_hour by default]
#
# Needs an active virtual environment, and says what to do where something is missing. Further arguments go to the runs,
# as in `first_hour.sh work num_iterations=20 filter=none` for a quick look at all steps: after 20 none would hold.
set -euo pipefail

checkout="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
here="$checkout/docs/first_hour"
work="${1:-first_hour}"
mkdir -p "$work" && cd "$work"
quick=("${@:2}")

step() {
    echo
    echo "== $1"
    echo "\$ ${*:2}"
    "${@:2}"
}

step "1. Install" pip install --quiet -e "$checkout[objects,view]"

step "2. The main job: 24 grasps that hold on each of two built-in objects" bimangrasp mode=scale "${quick[@]}"

step "3. Look at them: one page with everything in it" bimangrasp mode=view exp_name=demo
gallery="$PWD/data/experiments/demo/view/index.html"
browser="$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)"
if [[ -n "$browser" ]]; then
    profile="$(mktemp -d)"
    step "   The same page in a browser without a window (its messages go to browser.log)" "$browser" --headless --no-sandbox --disable-gpu --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync --use-angle=swiftshader \
        --enable-unsafe-swiftshader --user-data-dir="$profile" --window-size=1400,900 --virtual-time-budget=8000 \
        --screenshot="$PWD/gallery.png" "file://$gallery" 2>browser.log
    rm -rf "$profile"
else
    echo "no chromium here: open $gallery in any browser"
fi

step "4. How did it go?" bimangrasp mode=report exp_name=demo

step "5. Load them in ten lines and train a step" python "$here/train_one_step.py"

step "6. Hand them to code that reads BimanGrasp's files" bimangrasp mode=export exp_name=demo format=npy
step "   which needs nothing but NumPy" python "$here/read_npy.py" data/experiments/demo/export/npy/bowl.npy

mkdir -p my_meshes # a mesh as people have them: an STL in millimeters, off its origin
python -c "import trimesh; trimesh.creation.annulus(30, 55, 80).apply_translation((200, 0, 0)).export('my_meshes/ring.stl')"
step "7. A mesh of your own: check, repair, normalize, decompose" \
    bimangrasp mode=objects object_root=my_meshes out=my_meshdata
step "   and grasps on it" \
    bimangrasp mode=generate object_root=my_meshdata object_code_list=all exp_name=my_ring "${quick[@]}"

step "8. A hand of your own: mode=hand asks for what no file says; here it is given" \
    bimangrasp mode=hand hand.mjcf="$here/my_hand.xml" out=my_hand.yaml \
    'hand.palm_normal=[1,0,0]' 'hand.finger_direction=[0,0,1]' hand.side=right
step "   and grasps with it" \
    bimangrasp mode=generate --config-dir . hand=my_hand exp_name=my_hand 'object_code_list=[bowl]' "${quick[@]}"

echo
echo "Done. To look at: $gallery, $PWD/data/experiments/demo/report.html, $PWD/hand/my_hand.png"
