"""The shell scripts that `deploy` runs on a board, of whose programs they take what all have.

What they tell is in lines ``tfedge:key=value``; how they end says what is in the way.
"""

from __future__ import annotations

from tfedge.boards.service import OWED

MODEL = "model.tflite"

NO_FOLDER, NO_PYTHON, OLD_PYTHON, NO_ROOM, NO_PREVIOUS, FOREIGN, BROKEN_PYTHON = range(3, 10)
_LOCK_S = 60

# In the folder, $python being what the user asked for, or nothing.
_PYTHON = f"""
case $python in "~/"*) python=$HOME/${{python#"~/"}} ;; esac
[ -n "$python" ] || [ ! -x venv/bin/python3 ] || python=venv/bin/python3
python=$(command -v "${{python:-python3}}") || exit {NO_PYTHON}
case $python in /*) ;; *) python=$(pwd)/$python ;; esac
"""

# Names what a version's folder holds now, as `_name` does; nothing if it is not whole.
_SEEN = f"""
seen() {{
  "$python" -c 'import glob, hashlib, os, sys
os.chdir(sys.argv[1])
found = hashlib.sha256()
for name in sorted(glob.glob("*.py")) + ["{MODEL}"]:
    with open(name, "rb") as stream:
        found.update(name.encode() + bytes(1) + hashlib.sha256(stream.read()).digest())
print(found.hexdigest()[:8])' "$1" </dev/null 2>/dev/null
}}
"""

# Arguments: the folder, the version's name, the kB it needs, a Python or nothing.
PREPARE = f"""{_SEEN}
mkdir -p "$1/versions" && cd "$1" && [ -w . ] && [ -w versions ] || exit {NO_FOLDER}
for name in current previous; do [ ! -e $name ] || [ -L $name ] || exit {FOREIGN}; done
python=$4{_PYTHON}
[ "$("$python" -c 'print(6 * 7)' </dev/null)" = 42 ] || exit {BROKEN_PYTHON}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 7))' </dev/null || exit {OLD_PYTHON}
echo "tfedge:folder=$(pwd)"
echo "tfedge:python=$python"
echo "tfedge:current=$(readlink current)"
if [ "$(seen current)" = "$2" ]; then
  echo tfedge:there=yes
  exit 0
fi
free=$(df -Pk . | awk 'NR == 2 {{ print $4 }}')
echo "tfedge:free=$free"
[ -z "$free" ] || [ "$free" -ge "$3" ] || exit {NO_ROOM}
rm -rf "versions/.new-$2" && mkdir "versions/.new-$2" || exit {NO_FOLDER}
"""

# Arguments: a version's folder, a Python, infer.py's arguments.
INFER = """
cd "$1" || exit 2
python=$2
shift 2
exec "$python" infer.py "$@" </dev/null
"""

# From here on a broken connection must not stop it half way, nor another deploy come between.
_LINK = f"""
trap '' HUP PIPE
set -e
cd "$1"
exec 9>.lock
flock -w {_LOCK_S} 9 || {{ echo "another deploy has held it for {_LOCK_S} s" >&2; exit 1; }}
python=$2
link() {{ ln -s "$1" ".$2.$$"; mv -Tf ".$2.$$" "$2"; }}
old=$(readlink current || true)
"""

# Notes what a process that runs version $1 needs to run version $2: with another runner or another
# input it cannot go on, and what an earlier switch needed it may still need.  In the folder.
_OWE = f"""
fed() {{
  "$python" -c 'import json, sys, zipfile
print(json.loads(zipfile.ZipFile(sys.argv[1]).read("card.json"))["input"])' \
    "$1/{MODEL}" </dev/null 2>/dev/null || echo "$1"
}}
owe() {{
  owed=reload
  for file in "$2"/*.py; do
    cmp -s "$file" "$1/${{file##*/}}" || owed=restart
  done
  [ "$(fed "$1")" = "$(fed "$2")" ] || owed=restart
  if [ $owed = restart ] || [ ! -s {OWED} ]; then echo $owed >{OWED}; fi
}}
"""

_NAME = "[0-9a-f]" * 8
"""The shell's pattern of a version's name: whatever else is in the folder is somebody's own."""

# Arguments: the folder, a Python, the version's name.  Versions before the previous one go.
SWITCH = f"""{_OWE}{_LINK}
name=$3
number=1
while [ -e "versions/$name" ]; do number=$((number + 1)); name=$3.$number; done
mv "versions/.new-$3" "versions/$name"
owe "$old" "versions/$name"
sync
link "versions/$name" current
case "$old" in
  "" | "versions/$3" | "versions/$3".*) ;;
  *) link "$old" previous ;;
esac
previous=$(readlink previous || true)
for version in versions/*; do
  case "$version" in
    "versions/$name" | "$previous") ;;
    versions/{_NAME} | versions/{_NAME}.*) [ ! -e "$version/infer.py" ] || rm -rf "$version" ;;
  esac
done
find versions -maxdepth 1 -name '.new-{_NAME}' -mmin +60 -exec rm -rf {{}} +
"""

PREVIOUS = f"""
cd "$1" || exit {NO_FOLDER}
[ -e previous/{MODEL} ] || exit {NO_PREVIOUS}
echo "tfedge:folder=$(pwd)"
echo "tfedge:current=$(readlink current)"
echo "tfedge:previous=$(readlink previous)"
python=$2{_PYTHON}
echo "tfedge:python=$python"
"""

SWAP = f"""{_OWE}{_LINK}
new=$(readlink previous)
owe "$old" "$new"
link "$new" current
link "$old" previous
"""
