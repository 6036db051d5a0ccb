from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from loopback import children, golden_model, loopback

from tfedge.boards import deploy, measured, service, ssh
from tfedge.boards.deploy import Wishes
from tfedge.cli import main
from tfedge.errors import CheckError, UserError
from tfedge.progress import Silent
from tfedge.report import ladder

pytestmark = pytest.mark.slow  # each answers a real ssh several times

# A runner that answers at once what a test wants, in place of device/infer.py.
STUB = """\
import json, pathlib, sys, time
here = pathlib.Path(__file__).resolve().parent
told = json.loads((here / "told.py").read_text()[2:])
for name, answer in told.items():
    if f"--{name}" in sys.argv:
        time.sleep(answer.get("sleep", 0))
        (here / "testing").touch()
        print(json.dumps(answer.get("said", {})))
        print(answer.get("err", ""), file=sys.stderr)
        sys.exit(answer.get("exit", 0))
"""


# A Python with which the self-test does not pass any more.
BROKEN = """\
#!/bin/sh
case "$*" in *--selftest*) echo "golden vector 0: wrong" >&2; exit 1 ;; esac
exec {there}/tools/python3 "$@"
"""


@pytest.fixture(scope="module")
def server():
    with loopback() as started:
        yield started


@pytest.fixture
def there(server, tmp_path):
    """The server, as it was started, with nothing deployed."""
    server.restore()
    yield server
    for left in server.home.iterdir():
        subprocess.run(["rm", "-rf", str(left)], check=True)


@pytest.fixture
def board(there):
    return there.board()


@pytest.fixture
def model(tmp_path):
    """Return a model of a seed; `off` makes its self-test fail."""

    def make(seed=0, off=0):
        return golden_model(tmp_path / f"model{seed}_{off}.tflite", seed=seed, off=off)

    return make


@pytest.fixture
def quick(tmp_path):
    """A runner whose doctor and self-test pass at once, where it is not the runner that counts."""
    return stub(tmp_path / "quick", doctor={}, selftest={})


class Told(Silent):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def stub(folder, **told):
    """Write a folder of runner files; each of `told` is an option and what it does."""
    folder.mkdir(exist_ok=True)
    (folder / "infer.py").write_text(STUB)
    (folder / "told.py").write_text("# " + json.dumps(told))
    if "doctor" in told:
        (folder / "doctor.py").write_text("")
    return folder


def put(model, board, **more):
    wishes = Wishes(
        **{name: more.pop(name) for name in ("python", "service", "bench") if name in more}
    )
    told = Told()
    name = deploy.deploy(model, board, wishes, told, **more)
    return name, told.lines


def answers(board, tmp_path):
    """Ask what is in use there, over ssh, about two inputs; return all that it prints."""
    images = np.random.default_rng(9).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    board.copy([tmp_path / "x.npy"], board.folder)
    script = 'cd "$1" && python3 current/infer.py current/model.tflite x.npy --format json'
    answer = board.run(script, board.folder)
    assert answer.status == 0, answer.err
    assert len(answer.out.splitlines()) == 2
    return answer.out


def in_use(board):
    return str(Path(board.folder, "current").readlink())


def versions(board):
    return sorted(file.name for file in Path(board.folder, "versions").iterdir())


def test_a_model_is_in_use_when_it_has_passed_its_test_there(board, model, tmp_path):
    name, told = put(model(), board)
    assert in_use(board) == f"versions/{name}"
    assert versions(board) == [name]
    assert [line.split()[0] for line in told] == ["copied", "doctor", "selftest", "in"]
    assert told[2].startswith("selftest     passed, ai-edge-litert")
    assert '"classes"' in answers(board, tmp_path)
    content = Path(board.folder, "current/model.tflite").read_bytes()
    assert content == model().read_bytes()


def test_the_board_runs_it_as_an_ordinary_user(there, board, model, quick):
    put(model(), board, device=quick)
    owner = Path(board.folder, "current/model.tflite").stat().st_uid
    assert owner == int(board.run("id -u").out)
    assert os.geteuid() != 0 or owner != 0


def test_the_version_before_is_kept_and_the_one_before_that_goes(board, model, quick):
    first, second, third = (put(model(seed), board, device=quick)[0] for seed in (1, 2, 3))
    assert versions(board) == sorted([second, third])
    assert in_use(board) == f"versions/{third}"
    assert str(Path(board.folder, "previous").readlink()) == f"versions/{second}"
    assert first not in versions(board)


def test_a_rollback_goes_back_and_another_one_forward(board, model, quick):
    first, second = (put(model(seed), board, device=quick)[0] for seed in (1, 2))
    assert deploy.rollback(board, Wishes(), Silent()) == first
    assert in_use(board) == f"versions/{first}"
    assert deploy.rollback(board, Wishes(), Silent()) == second
    assert in_use(board) == f"versions/{second}"


def test_the_same_once_more_is_tested_and_not_copied_again(there, board, model, quick):
    first = put(model(1), board, device=quick)[0]
    put(model(2), board, device=quick)
    before = Path(board.folder, "current", "model.tflite").stat()
    there.hang_copies()  # a copy would never end
    again, told = put(model(2), board, device=quick)
    assert told[0] == f"in use       version {again} already, and whole; not copied again"
    assert [line.split()[0] for line in told] == ["in", "doctor", "selftest"]
    after = Path(board.folder, "current", "model.tflite").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert versions(board) == sorted([first, again])
    assert str(Path(board.folder, "previous").readlink()) == f"versions/{first}"


def test_the_same_once_more_replaces_what_was_damaged_there(board, model, quick):
    first = put(model(1), board, device=quick)[0]
    name = put(model(2), board, device=quick)[0]
    Path(board.folder, "current", "infer.py").write_text("print('mine')")
    again, told = put(model(2), board, device=quick)
    assert told[0].startswith("copied")
    assert again == name
    assert in_use(board) == f"versions/{name}.2"
    assert Path(board.folder, "current", "infer.py").read_text() == STUB
    assert versions(board) == sorted([first, f"{name}.2"])
    assert str(Path(board.folder, "previous").readlink()) == f"versions/{first}"


def test_the_same_once_more_that_fails_its_test_now_says_so(there, board, model, quick):
    name, _ = put(model(1), board, device=quick)
    there.program("python3", BROKEN.format(there=there.folder))
    with pytest.raises(
        CheckError, match=f"failed its test there(.|\\n)*version {name} goes on there"
    ):
        put(model(1), board, device=quick)
    assert in_use(board) == f"versions/{name}"


def test_a_rollback_without_a_version_before_says_so(board, model, quick):
    with pytest.raises(UserError, match=r"there is no .*tfedge\n  deploy to it first"):
        deploy.rollback(board, Wishes(), Silent())
    put(model(), board, device=quick)
    with pytest.raises(UserError, match="there is no version before"):
        deploy.rollback(board, Wishes(), Silent())


def test_a_failed_selftest_leaves_the_old_version_running(board, model, tmp_path):
    name, _ = put(model(1), board)
    before = answers(board, tmp_path)
    with pytest.raises(CheckError) as failed:
        put(model(2, off=40), board)
    text = str(failed.value)
    assert text.startswith(f"{board.at}: the model failed its test there: golden vector 0")
    assert text.endswith(f"version {name} goes on there")
    assert in_use(board) == f"versions/{name}"
    assert answers(board, tmp_path) == before


def test_a_version_before_that_fails_its_test_is_not_gone_back_to(board, model):
    first, second = (put(model(seed), board)[0] for seed in (1, 2))
    broken = Path(board.folder, "versions", first, "model.tflite")
    owner = board.run(f"cd {board.folder}/versions/{first} && : >model.tflite")
    assert (owner.status, broken.stat().st_size) == (0, 0)
    with pytest.raises(CheckError, match=f"version {second} goes on there"):
        deploy.rollback(board, Wishes(), Silent())
    assert in_use(board) == f"versions/{second}"


def test_what_the_doctor_finds_is_told_with_the_line_that_mends_it(board, model, tmp_path):
    findings = {"findings": ["no TFLite runtime"], "install": "pip install ai-edge-litert numpy"}
    ill = stub(tmp_path / "device", doctor={"exit": 1, "said": findings})
    with pytest.raises(CheckError) as failed:
        put(model(), board, device=ill)
    assert str(failed.value) == (
        f"{board.at}: its doctor says: no TFLite runtime\n"
        "  there: pip install ai-edge-litert numpy\n  nothing is in use there yet"
    )
    assert not Path(board.folder, "current").exists()


def test_a_healthy_doctor_is_told_in_a_line(board, model, tmp_path):
    well = stub(tmp_path / "device", doctor={"said": {"runtime": "litert 9"}}, selftest={})
    _, told = put(model(), board, device=well)
    assert "doctor       nothing is wrong, litert 9" in told


def deploying(model, board, device=None):
    """Start a deploy in a thread; its error is there when the thread has ended."""
    caught = []

    def work():
        try:
            put(model, board, device=device)
        except UserError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, caught


def wait_for(true):
    for _ in range(400):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 20 s")


def test_a_connection_cut_while_copying_leaves_the_old_version_running(
    there, board, model, tmp_path
):
    name, _ = put(model(1), board)
    before = answers(board, tmp_path)
    hanging = there.hang_copies()
    thread, caught = deploying(model(2), board)
    wait_for(hanging.exists)
    there.cut()
    thread.join(30)
    (error,) = caught
    assert "the connection broke" in str(error)
    assert f"version {name} goes on there" in str(error)
    there.restore()
    assert in_use(board) == f"versions/{name}"
    assert answers(board, tmp_path) == before


def test_a_connection_cut_while_testing_leaves_the_old_version_running(
    there, board, model, tmp_path
):
    name, _ = put(model(1), board)
    before = answers(board, tmp_path)
    slow = stub(tmp_path / "device", selftest={"sleep": 60})
    thread, caught = deploying(model(2), board, slow)
    new = Path(board.folder, "versions")
    wait_for(lambda: any((file / "told.py").exists() for file in new.glob(".new-*")))
    wait_for(lambda: b"--selftest" in board_processes(there))
    there.cut()
    thread.join(30)
    (error,) = caught
    assert "the connection broke" in str(error)
    assert in_use(board) == f"versions/{name}"
    assert answers(board, tmp_path) == before
    # And a deploy an hour later, when no other can be at it, clears up what was left half way.
    (left,) = new.glob(".new-*")
    os.utime(left, (0, 0))
    after, _ = put(model(3), board)
    assert versions(board) == sorted([name, after])


def board_processes(there):
    """Return the command lines of everything that the board's sshd runs."""
    lines = []
    for process in children(there.server):
        file = Path(f"/proc/{process}/cmdline")
        lines.append(file.read_bytes() if file.exists() else b"")
    return b"\n".join(lines)


def test_a_connection_cut_while_switching_leaves_the_old_or_the_new(there, board, model, tmp_path):
    old, _ = put(model(1), board)
    there.program("sync", f"#!/bin/sh\n: >{there.home}/switching\nsleep 1\n")
    thread, caught = deploying(model(2), board)
    wait_for((there.home / "switching").exists)
    there.cut()
    thread.join(30)
    assert "the connection broke" in str(caught[0])
    there.restore()
    assert in_use(board).startswith("versions/")
    assert Path(board.folder, in_use(board), "model.tflite").is_file()
    assert '"classes"' in answers(board, tmp_path)
    assert old in versions(board)


def test_a_board_without_python_is_named(there, board, model):
    there.without("python3")
    with pytest.raises(UserError, match="there is no python3 there\n  install it: sudo apt"):
        put(model(), board)


def test_a_board_with_an_old_python_is_named(there, board, model):
    there.program("python3", '#!/bin/sh\ncase "$*" in *version_info*) exit 1 ;; esac\necho 42\n')
    with pytest.raises(UserError, match=r"its python3 is older than 3\.7"):
        put(model(), board)


def test_a_board_without_room_is_named_before_anything_is_copied(there, board, model):
    there.program("df", "#!/bin/sh\necho head\necho /dev/x 1000 990 10 99% /\n")
    with pytest.raises(UserError, match=r"no room: 10 kB free, 1,\d\d\d needed"):
        put(model(), board)
    assert versions(board) == []


def test_a_folder_that_may_not_be_written_to_is_named(board, model):
    with pytest.raises(UserError, match="cannot write to /proc/tfedge: mkdir: cannot create"):
        put(model(), replace(board, folder="/proc/tfedge"))


def test_the_folders_own_venv_is_taken_before_any_other_python(there, board, model, quick):
    venv = Path(board.folder, "venv", "bin")
    script = 'mkdir -p "$1" && printf "%s\\n" "#!/bin/sh" ": >$1/used" "exec python3 \\"\\$@\\"" \
>"$1/python3" && chmod 755 "$1/python3"'
    there.program("chmod", '#!/bin/sh\nexec /bin/chmod "$@"\n')
    assert board.run(script, str(venv)).status == 0
    put(model(), board, device=quick)
    assert (venv / "used").exists()


def test_another_python_is_taken_if_named(there, board, model, quick):
    there.program("python9", '#!/bin/sh\nexec python3 "$@"\n')
    there.program("python3.6", "#!/bin/sh\nexit 1\n")
    assert put(model(), board, python="python9", device=quick)[0]
    with pytest.raises(UserError, match=r"its python3\.6 is no Python that runs\n  name another"):
        put(model(), board, python="python3.6", device=quick)
    with pytest.raises(UserError, match=r"there is no python8 there\n  name another one with --py"):
        put(model(), board, python="python8", device=quick)
    assert len(versions(board)) == 1


def test_a_python_below_home_is_taken_by_its_tilde(there, board, model, quick):
    script = 'mkdir -p ~/py && ln -s "$(command -v python3)" ~/py/python'
    assert board.run(script).status == 0
    assert put(model(), board, python="~/py/python", device=quick)[0]


def test_a_folder_called_current_is_noticed_before_anything_is_copied(board, model):
    own = Path(board.folder, "current")
    assert board.run('mkdir -p "$1" && echo mine >"$1/notes.txt"', str(own)).status == 0
    with pytest.raises(
        UserError, match="current or previous is no link of tfedge's\n  move it away"
    ):
        put(model(), board)
    assert (own / "notes.txt").read_text() == "mine\n"
    assert versions(board) == []


def test_a_folder_that_systemd_would_misread_is_refused_before_the_switch(board, model, device):
    odd = replace(board, folder=f"{board.folder}/my photos")
    with pytest.raises(UserError, match="systemd would read"):
        put(model(), odd, service=True)
    assert not Path(odd.folder, "current").exists()


@pytest.mark.parametrize("content", [None, b"no model at all"])
def test_what_is_no_model_is_told_so(board, tmp_path, content):
    file = tmp_path / "notes.txt"
    if content:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"give the \.tflite that tfedge build made"):
        put(file, replace(board, port=1))


def test_a_port_where_nobody_listens_refuses(board, model):
    with pytest.raises(UserError, match=f"{board.at}: it refuses the connection"):
        put(model(), replace(board, port=1))


def test_a_host_of_no_name_is_not_known(board, model):
    with pytest.raises(UserError, match=r"pi@no-such-board\.invalid: the host is not known"):
        put(model(), replace(board, at="pi@no-such-board.invalid"))


def test_a_host_whose_key_was_never_seen_is_not_trusted(board, model, tmp_path):
    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile {tmp_path}/none\nGlobalKnownHostsFile {tmp_path}/none\n")
    with pytest.raises(UserError, match=f"its key is not known here\n  .*ssh {board.at}"):
        put(model(), replace(board, config=config))


def test_a_host_whose_key_changed_is_not_trusted(there, board, model, tmp_path):
    config, known = tmp_path / "config", tmp_path / "known"
    other = (there.folder / "user_key.pub").read_text()
    known.write_text(f"[127.0.0.1]:{there.port} {other}")
    config.write_text(f"UserKnownHostsFile {known}\nIdentityFile {there.folder}/user_key\n")
    with pytest.raises(UserError, match="its key is another one than before"):
        put(model(), replace(board, config=config))


def test_a_key_that_the_board_does_not_take_is_told(there, board, model, tmp_path):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    config = tmp_path / "config"
    config.write_text(
        f"UserKnownHostsFile {there.folder}/known_hosts\nIdentityFile {key}\nIdentitiesOnly yes\n"
    )
    with pytest.raises(UserError, match="it takes none of your keys\n  give it one: ssh-copy-id"):
        put(model(), replace(board, config=config))


def test_a_key_is_taken_from_the_option(there, board, model, tmp_path, quick):
    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile {there.folder}/known_hosts\nIdentitiesOnly yes\n")
    there_key = replace(board, config=config, identity=there.folder / "user_key")
    assert put(model(), there_key, device=quick)[0]


def test_without_ssh_here_it_says_what_to_install(board, model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="ssh: is not installed\n  install it: apt install openssh"):
        put(model(), board)


def test_a_model_without_a_card_is_refused_before_any_connection(board, tmp_path):
    from tiny_model import tiny_model

    bare = tmp_path / "bare.tflite"
    bare.write_bytes(tiny_model())
    with pytest.raises(UserError, match="has no card"):
        put(bare, replace(board, port=1))


def test_the_boards_own_figures_come_back_into_the_report(board, model, tmp_path):
    file = shutil.copy(model(), tmp_path / "tiny.tflite")
    put(file, board, bench=5)
    name = f"{board.at}:{board.port}"
    kept = json.loads((tmp_path / "boards" / f"{board.at}+{board.port}.json").read_text())
    assert (kept["host"], kept["runs"]) == (name, 5)
    (found,) = measured.figures(tmp_path)
    assert found["model"] == "tiny.tflite"
    report = ladder.report_of("tiny", [], [found])
    assert f"on {name}, tiny.tflite ({found['runtime']}, cpu): an input p50" in (
        ladder.board_line(report["boards"][0])
    )


def test_figures_of_another_model_are_not_reported(model, tmp_path):
    file = model(1)
    measured.save({"host": "pi", "total_p50_ms": 1.0}, file, tmp_path)
    assert [one["host"] for one in measured.figures(tmp_path)] == ["pi"]
    flatbuffer = bytearray(file.read_bytes())
    flatbuffer[200] ^= 1
    file.write_bytes(bytes(flatbuffer))
    assert measured.figures(tmp_path) == []


def test_the_figures_of_two_users_and_of_two_ports_are_kept_apart(model, tmp_path):
    at = [("pi@lab", None), ("ann@lab", None), ("pi@lab", 2222), ("pi@[fe80::1]", 22)]
    names = [ssh.Board(*place) for place in ((at, "x", port) for at, port in at)]
    for board in names:
        measured.save({"host": board.name}, model(), tmp_path)
    kept = [one["host"] for one in measured.figures(tmp_path)]
    assert sorted(kept) == sorted(["pi@lab", "ann@lab", "pi@lab:2222", "pi@[fe80::1]:22"])


# A stand-in for systemd and sudo: it notes what it is asked, and answers as it is told.
SYSTEMCTL = """\
#!/bin/sh
echo "systemctl $*" >>{home}/asked
case "$*" in
  --user*is-active*) exit 1 ;;
  *is-active*) [ -e {home}/active ] ;;
  *cat*) cat {home}/unit ;;
  *show-environment*) exit {user} ;;
esac
"""
SUDO = """\
#!/bin/sh
echo "sudo $*" >>{home}/asked
shift
case $1 in install) cp "$4" {home}/unit ;; true) ;; *) exec "$@" ;; esac
"""
UNIT = (REPO / "device/tfedge.service").read_text()


def systemd(there, *, sudo=True, user=1):
    there.program("systemctl", SYSTEMCTL.format(home=there.home, user=user))
    if sudo:
        there.program("sudo", SUDO.format(home=there.home))


def asked(there):
    file = there.home / "asked"
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def device(tmp_path):
    folder = stub(tmp_path / "device", selftest={})
    (folder / "tfedge.service").write_text(UNIT)
    return folder


def test_a_service_is_installed_with_the_boards_paths_and_user(there, board, model, device):
    systemd(there)
    _, told = put(model(), board, service=True, device=device)
    assert told[-1] == (
        "service      tfedge.service runs as a system service, watches /var/lib/tfedge/photos"
    )
    lines = (there.home / "unit").read_text().splitlines()
    current = f"{board.folder}/current"
    python = there.folder / "tools" / "python3"
    assert (
        f"ExecStart={python} {current}/infer.py {current}/model.tflite --serve --watch "
        "/var/lib/tfedge/photos --state /var/lib/tfedge/answered"
        " --json --output /var/lib/tfedge/answers.jsonl"
    ) in lines
    assert f"User={there.user}" in lines
    assert [line for line in asked(there) if "restart" in line] == [
        "sudo -n systemctl restart tfedge.service",
        "systemctl restart tfedge.service",
    ]


def test_without_sudo_the_service_is_the_users_own(there, board, model, device):
    systemd(there, sudo=False, user=0)
    _, told = put(model(), board, service=True, device=device)
    photos = f"{board.folder}/data/photos"
    assert f"user service, watches {photos}; sudo loginctl enable-linger" in told[-1]
    assert Path(photos).is_dir()
    unit = Path(there.home, ".config/systemd/user/tfedge.service").read_text()
    assert not [word for word in ("User=", "Protect", "StateDirectory") if word in unit]
    assert "WantedBy=default.target" in unit
    assert "systemctl --user restart tfedge.service" in asked(there)


def test_a_sudo_that_wants_a_password_is_told_with_what_to_type(there, board, model, device):
    systemd(there, sudo=False, user=1)
    with pytest.raises(CheckError) as failed:
        put(model(), board, service=True, device=device)
    assert "the service needs sudo, which asks for a password" in str(failed.value)
    assert f"sudo cp {board.folder}/tfedge.service /etc/systemd/system/" in str(failed.value)
    assert Path(board.folder, "tfedge.service").is_file()
    assert Path(board.folder, "current").exists()


def test_a_board_without_systemd_is_told(board, model, device):
    with pytest.raises(CheckError, match="has no systemd to install a service in"):
        put(model(), board, service=True, device=device)


def test_a_running_service_takes_a_new_model_by_reload_and_a_new_runner_by_restart(
    there, board, model, device, tmp_path
):
    systemd(there)
    put(model(1), board, service=True, device=device)
    (there.home / "active").touch()  # from now on it is active

    (there.home / "asked").unlink()
    _, told = put(model(2), board, device=device)
    assert told[-1] == "service      tfedge.service: reload done"
    assert "systemctl reload tfedge.service" in asked(there)

    # An input of another kind is nothing that a running process can go on with.
    other = golden_model(tmp_path / "other.tflite", resize="nearest")
    _, told = put(other, board, device=device)
    assert told[-1] == "service      tfedge.service: restart done"

    deploy.rollback(board, Wishes(), Silent())
    assert asked(there)[-1] == "systemctl restart tfedge.service"

    (device / "infer.py").write_text(STUB + "\n")
    _, told = put(model(2), board, device=device)
    assert told[-1] == "service      tfedge.service: restart done"


def test_what_a_service_could_not_be_told_it_is_told_by_the_same_deploy_once_more(
    there, board, model, device
):
    systemd(there)
    put(model(1), board, service=True, device=device)
    (there.home / "active").touch()
    (device / "infer.py").write_text(STUB + "\n")
    there.program("sudo", "#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n")
    _, told = put(model(1), board, device=device)
    assert "still runs the version before (sudo: a password is required)" in told[-1]
    assert told[-1].endswith("there: sudo systemctl restart tfedge.service")

    there.program("sudo", SUDO.format(home=there.home))
    _, told = put(model(1), board, device=device)
    assert told[0].endswith("not copied again")
    assert told[-1] == "service      tfedge.service: restart done"
    (there.home / "asked").unlink()
    _, told = put(model(1), board, device=device)
    assert told[-1].startswith("selftest")  # and a third time there is nothing left to do
    assert asked(there) == []


def test_a_service_of_another_folder_is_left_alone(there, board, model, device):
    systemd(there)
    (there.home / "active").touch()
    (there.home / "unit").write_text(UNIT)
    _, told = put(model(1), board, device=device)
    assert not [line for line in asked(there) if "restart" in line or "reload" in line]
    assert told[-1].startswith("in use")


@pytest.mark.parametrize(
    ("target", "at", "folder"),
    [
        ("pi@raspi:tfedge", "pi@raspi", "tfedge"),
        ("raspi:/opt/tfedge/", "raspi", "/opt/tfedge"),
        ("pi@[fe80::1]:~/a b", None, "cannot be a folder"),
        ("pi@[fe80::1]:~/ab", "pi@[fe80::1]", "ab"),
        ("pi@raspi", None, "write USER@HOST:DIR"),
        ("pi@raspi:", None, "write USER@HOST:DIR"),
        ("-oProxyCommand=x:dir", None, "write USER@HOST:DIR"),
        ("pi@raspi:$(id)", None, "cannot be a folder"),
        ("pi@raspi:-rf", None, "cannot be a folder"),
    ],
)
def test_a_target_is_read_or_refused(target, at, folder):
    if at is None:
        with pytest.raises(UserError, match=folder):
            ssh.board(target)
    else:
        found = ssh.board(target)
        assert (found.at, found.folder) == (at, folder)


def test_what_a_login_prints_is_not_taken_for_an_answer():
    answer = ssh.Answer(0, "Welcome to=here\ntfedge:folder=/home/pi=x\n", "")
    assert answer.told == {"folder": "/home/pi=x"}


def test_the_command_deploys_and_rolls_back(there, board, model, capsys):
    target, config = f"{board.at}:{board.folder}", ["-F", str(there.config)]
    options = ["-p", str(there.port), *config]
    for seed in (1, 2):
        assert main(["deploy", target, str(model(seed)), *options]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith(f"{target}: version ")
    assert main(["deploy", target, "--rollback", *options]) == 0
    assert main(["deploy", target, str(model(3, off=40)), *options]) == 1
    assert main(["deploy", target, *options]) == 2
    assert "no model is named" in capsys.readouterr().err
    assert main(["deploy", target, str(model(1)), "--rollback", *options]) == 2


def test_a_pipeline_file_stands_for_what_it_has_made(there, board, model, tmp_path, capsys):
    pipeline = REPO / "tests" / "pipelines" / "stripes.toml"
    arguments = [
        "deploy",
        f"{board.at}:{board.folder}",
        str(pipeline),
        "--build-dir",
        str(tmp_path),
    ]
    options = ["-p", str(there.port), "-F", str(there.config), "--bench", "3"]
    assert main([*arguments, *options]) == 2
    assert f"has made no {tmp_path}/stripes/stripes.tflite yet" in capsys.readouterr().err
    (tmp_path / "stripes").mkdir()
    shutil.copy(model(), tmp_path / "stripes" / "stripes.tflite")
    assert main([*arguments, *options]) == 0
    assert (tmp_path / "stripes" / "boards" / f"{board.at}+{there.port}.json").is_file()


def test_a_bare_models_figures_go_into_the_build_folder_that_is_named(
    there, board, model, tmp_path, capsys
):
    """The card says which pipeline the model is of: tiny."""
    build, file = tmp_path / "build", model()
    options = ["-p", str(there.port), "-F", str(there.config), "--bench", "2"]
    target = f"{board.at}:{board.folder}"
    arguments = ["deploy", target, str(file), *options, "--build-dir", str(build)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"--build-dir {build}: {file} is no result of pipeline 'tiny' in it\n  leave" in said
    assert not Path(board.folder).exists()

    (build / "tiny").mkdir(parents=True)
    shutil.copy(file, build / "tiny" / "tiny.tflite")
    assert main(arguments) == 0
    assert [one["host"] for one in measured.figures(build / "tiny")] == [board.name]
    assert not (tmp_path / "boards").exists()
    assert main(["deploy", target, "--rollback", *options[:4], "--build-dir", str(build)]) == 2
    assert "--rollback: goes alone" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-i", "-F"])
def test_a_file_for_ssh_that_is_not_there_is_named(option, tmp_path, capsys):
    place = ["deploy", "pi@raspi:tfedge", "model.tflite"]
    assert main([*place, option, f"{tmp_path}/nokey"]) == 2
    said = capsys.readouterr().err
    assert f"tfedge: {option} {tmp_path}/nokey: is not there\n  name the file of" in said
    assert "Usage" not in said
    assert main([*place, option, str(tmp_path)]) == 2
    assert f"tfedge: {option} {tmp_path}: is no file\n" in capsys.readouterr().err


def test_a_key_that_others_may_read_is_told(there, board, model, tmp_path):
    key = Path(shutil.copy(there.folder / "user_key", tmp_path))
    key.chmod(0o644)
    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile {there.folder}/known_hosts\nIdentitiesOnly yes\n")
    with pytest.raises(UserError, match=r"others may read its file\n  .*chmod 600"):
        put(model(), replace(board, config=config, identity=key))


def test_a_deploy_takes_one_connection_and_leaves_none(there, board, model, quick):
    log = there.folder / "log"
    before = log.read_text().count("Accepted publickey")
    put(model(), board, device=quick)
    assert log.read_text().count("Accepted publickey") == before + 1
    wait_for(lambda: not children(there.server))


def test_connections_that_the_user_shares_already_are_taken(there, board, model, tmp_path, quick):
    config, socket = tmp_path / "config", tmp_path / "mine"
    own = f"ControlPath {socket}\nControlMaster auto\nControlPersist yes\n"
    config.write_text(own + there.config.read_text())
    mine = replace(board, config=config)
    put(model(), mine, device=quick)
    assert socket.exists()  # and theirs to end
    subprocess.run(["ssh", "-F", str(config), "-O", "exit", board.at], check=True)


def test_the_unit_keeps_what_is_not_of_the_board():
    lines = service.unit(UNIT, "/opt/x", "/opt/x/venv/bin/python3", user="ann").splitlines()
    kept = (
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "StateDirectory=tfedge tfedge/photos",
    )
    assert set(kept) | {"ProtectHome=yes", "WantedBy=multi-user.target", "User=ann"} <= set(lines)


def test_a_folder_in_a_home_stays_readable_behind_the_units_walls():
    assert "ProtectHome=read-only" in service.unit(UNIT, "/home/pi/x", "python3", user="pi")


def test_root_leaves_the_account_to_the_unit():
    assert "User=tfedge\n" in service.unit(UNIT, "/opt/x", "python3", user="root")


@pytest.mark.parametrize("path", ["/home/my pi/tf", "/opt/50%"])
def test_a_path_that_systemd_would_read_otherwise_is_refused(path):
    with pytest.raises(UserError, match="systemd would read"):
        service.unit(UNIT, path, "python3", user="pi")


def test_what_is_not_of_deploy_stays_in_its_folders(board, model, quick):
    own = Path(board.folder, "versions", "1.0")
    put(model(), board, device=quick)
    own.mkdir()
    (own / "thesis.txt").write_text("mine")
    (own.parent / "notes.txt").write_text("mine")
    put(model(1), board, device=quick)
    put(model(2), board, device=quick)
    assert (own / "thesis.txt").read_text() == (own.parent / "notes.txt").read_text() == "mine"
    assert len(versions(board)) == 4


def test_two_deploys_at_once_leave_a_version_in_use_and_one_before(board, model, quick):
    files = [model(number) for number in (3, 4)]
    at_once = [
        threading.Thread(target=put, args=(file, board), kwargs={"device": quick}) for file in files
    ]
    for thread in at_once:
        thread.start()
    for thread in at_once:
        thread.join()
    assert Path(board.folder, "current", "model.tflite").is_file()
    assert Path(board.folder, "previous", "model.tflite").is_file()
